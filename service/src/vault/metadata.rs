//! The object beside a backup that records its volume's metadata, `backup.<id>.meta`.

use api_compat::ids::BackupId;
use api_compat::names;

use super::{BackupRecord, Error, Result, Vault};

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

    /// The text of a backup's metadata object; `None` when there is none.
    pub async fn read_metadata(&self, record: &BackupRecord) -> Result<Option<String>> {
        let name = names::metadata_object(record.backup);
        let pool = self.pool_of(record).await?;
        let Some(bytes) = pool.read_object(&name, LIMIT).await? else {
            return Ok(None);
        };
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Error::damaged(format!("Metadata object {name} is not UTF-8 text")))
    }

    pub(super) async fn has_metadata(&self, record: &BackupRecord) -> Result<bool> {
        let name = names::metadata_object(record.backup);
        let pool = self.pool_of(record).await?;
        Ok(pool.object_size(&name).await?.is_some())
    }
}
