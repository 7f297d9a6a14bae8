//! A whole worker against Python's, in turns: the same volumes, requests through Cinder's API, until the
//! database says that all is done.
//!
//! Needs a lab with a worker (`LAB_WORKER`). Options: `--pairs N` (3), `--many N` (20), `--data MIB` (1024).
//!
//! In each turn one of the two runs alone, and does every scene once. What it restores is compared with what
//! was backed up; that, and making the data, does not count.

mod cost;
mod report;
mod scenes;

use anyhow::{Context, Result};
use cinderblock_tests::Lab;

use report::report;
use scenes::{Contender, Stage};

#[tokio::main]
async fn main() -> Result<()> {
    let settings = Settings::from_args()?;
    let lab = Lab::from_env()?;
    let mut stages = [
        Stage::set_up(&lab, Contender::Python, &settings).await?,
        Stage::set_up(&lab, Contender::Ours, &settings).await?,
    ];
    let mut turns = Vec::new();
    for round in 0..settings.pairs {
        let order = match round % 2 {
            0 => [0, 1],
            _ => [1, 0],
        };
        let mut pair = [const { Vec::new() }; 2];
        for at in order {
            pair[at] = stages[at].play().await?;
        }
        let [theirs, ours] = pair;
        turns.push((theirs, ours));
    }
    report(&turns);
    Ok(())
}

/// How much is done.
pub struct Settings {
    pairs: usize,
    /// Operations at once, where there are many.
    many: usize,
    /// MiB in the large volume.
    data: usize,
}

impl Settings {
    fn from_args() -> Result<Self> {
        let mut settings = Self {
            pairs: 3,
            many: 20,
            data: 1024,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let field = match name.as_str() {
                "--pairs" => &mut settings.pairs,
                "--many" => &mut settings.many,
                "--data" => &mut settings.data,
                // What cargo adds.
                "--bench" => continue,
                other => anyhow::bail!("{other} is not known"),
            };
            let value = arguments.next().context("a number is missing")?;
            *field = value.parse().with_context(|| value.clone())?;
        }
        Ok(settings)
    }
}
