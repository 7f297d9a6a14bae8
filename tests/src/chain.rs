//! A volume and its chain of backups.

use anyhow::{Result, ensure};

use crate::{Cloud, Cluster, Content, Lab, Resource, image};

/// A volume, and what its backups must contain.
pub struct Chain {
    /// The cloud, as the user sees it.
    pub cloud: Cloud,
    /// The volumes' cluster.
    pub volumes: Cluster,
    /// The backups' cluster.
    pub backups: Cluster,
    /// The volume's id.
    pub volume: String,
    /// The backups that stand, each with what the volume held.
    pub made: Vec<(String, Content)>,
}

impl Chain {
    /// Makes a volume of some GiB.
    pub async fn begin(size: u64) -> Result<Self> {
        let lab = Lab::from_env()?;
        let cloud = Cloud::login(&lab, "demo").await?;
        let volume = cloud.create_volume(size).await?;
        let (volumes, backups) = (cloud.volumes()?, cloud.backups()?);
        Ok(Self {
            cloud,
            volumes,
            backups,
            volume,
            made: Vec::new(),
        })
    }

    /// The volume's image.
    pub fn image(&self) -> String {
        image(&self.volume)
    }

    /// Writes one byte over and over.
    pub async fn write(&self, offset: u64, byte: u8, length: u64) -> Result<()> {
        let data = vec![byte; usize::try_from(length)?];
        self.volumes.write(&self.image(), offset, &data).await
    }

    /// Makes a backup; its id.
    pub async fn back_up(&mut self, incremental: bool) -> Result<String> {
        let content = self.volumes.content(&self.image()).await?;
        let backup = self.cloud.back_up(&self.volume, incremental).await?;
        self.made.push((backup.clone(), content));
        Ok(backup)
    }

    /// Whether a backup counts as incremental.
    pub async fn is_incremental(&self, backup: &str) -> Result<bool> {
        let shown = self.cloud.show(Resource::Backup, backup).await?;
        Ok(shown.is_some_and(|backup| backup["is_incremental"] == true))
    }

    /// Deletes a backup.
    pub async fn delete(&mut self, backup: &str) -> Result<()> {
        self.cloud.delete(Resource::Backup, backup).await?;
        self.made.retain(|(id, _)| id != backup);
        Ok(())
    }

    /// Restores every backup to a new volume and compares.
    pub async fn verify(&self) -> Result<()> {
        for (backup, content) in &self.made {
            let restored = self.cloud.restore(backup, None).await?;
            let found = self.volumes.content(&image(&restored)).await?;
            ensure!(
                &found == content,
                "backup {backup} restores as something else"
            );
            self.cloud.delete(Resource::Volume, &restored).await?;
        }
        Ok(())
    }

    /// The image that holds the volume's backups.
    pub async fn base_image(&self) -> Result<Option<String>> {
        let images = self.backups.images("backups").await?;
        Ok(images.into_iter().find(|name| name.contains(&self.volume)))
    }
}
