//! What most tests begin with.

use anyhow::Result;

use crate::{Cloud, Database, Lab};

/// The lab, its cloud as those who use it see it, and its database.
pub struct Setup {
    /// The lab.
    pub lab: Lab,
    /// The cloud, as a project's user sees it.
    pub cloud: Cloud,
    /// The cloud, as the administrator sees it.
    pub admin: Cloud,
    /// The cloud's database.
    pub database: Database,
}

impl Setup {
    /// Logs in as both.
    pub async fn new() -> Result<Self> {
        let lab = Lab::from_env()?;
        Ok(Self {
            cloud: Cloud::login(&lab, "demo").await?,
            admin: Cloud::login(&lab, "admin").await?,
            database: Database::new(&lab)?,
            lab,
        })
    }
}
