//! The object beside a backup that records its volume's metadata, `backup.<id>.meta`.

use api_compat::ids::BackupId;
use api_compat::names;

use super::{BackupRecord, Result, Vault};

/// A metadata object larger than this is refused: a volume with the most metadata that Cinder
/// accepts stays far below.
const LIMIT: usize = 64 << 20;

impl Vault {
    /// Writes the metadata object of a backup, replacing what an interrupted attempt left.
    pub async fn write_metadata(&self, pool: &str, backup: BackupId, text: &str) -> Result<()> {
        let name = names::metadata_object(backup);
        Ok(self
            .pool(pool)
            .await?
            .write_object(&name, text.as_bytes())
            .await?)
    }

    /// A backup's metadata object; `None` when there is none.
    pub async fn read_metadata(&self, record: &BackupRecord) -> Result<Option<Vec<u8>>> {
        let name = names::metadata_object(record.backup);
        let pool = self.pool_of(record).await?;
        Ok(pool.read_object(&name, LIMIT).await?)
    }

    pub(super) async fn has_metadata(&self, record: &BackupRecord) -> Result<bool> {
        let name = names::metadata_object(record.backup);
        let pool = self.pool_of(record).await?;
        Ok(pool.object_size(&name).await?.is_some())
    }
}
