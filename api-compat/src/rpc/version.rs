//! Which versions we publish, and which the rest of the fleet understands.

use crate::objects::{ObjectHistory, Version};

/// `services.rpc_current_version`: the version of the backup RPC API that we serve.
pub const BACKUP_RPC: Version = Version::new(2, 4);
/// `services.object_current_version`. Any text that Python does not know here keeps every Python
/// service from starting.
pub const OBJECTS: Version = Version::new(1, 39);
/// The newest version of cinder-volume's RPC API that we use.
pub const VOLUME_RPC: Version = Version::new(3, 17);

/// A service in the fleet is older than what we can talk to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooOld {
    /// A row has no version: the service is older than version pinning.
    #[error("a service has not published its versions; it is too old")]
    Unpublished,
    /// A row has something that is not a version.
    #[error("a service published {0:?} as its version")]
    NotAVersion(String),
    /// The oldest version is below what we need.
    #[error("the oldest service understands version {oldest} only, {needed} is needed")]
    Below {
        /// What the oldest service published.
        oldest: Version,
        /// What we need.
        needed: Version,
    },
}

/// The smallest version in the column of all rows of `services` that are not deleted; rows of
/// services that are down or disabled count too. Without any row it is `ours`.
///
/// # Errors
/// [`TooOld::Unpublished`] and [`TooOld::NotAVersion`].
pub fn oldest<'a>(
    rows: impl IntoIterator<Item = Option<&'a str>>,
    ours: Version,
) -> Result<Version, TooOld> {
    rows.into_iter().try_fold(ours, |oldest, row| {
        let text = row.filter(|text| !text.is_empty());
        let text = text.ok_or(TooOld::Unpublished)?;
        let version: Version = text
            .parse()
            .map_err(|_| TooOld::NotAVersion(text.chars().take(36).collect()))?;
        Ok(oldest.min(version))
    })
}

/// Checks that the oldest of the services understands what we send to them.
///
/// # Errors
/// [`TooOld`], as [`oldest`] and if the oldest is below `needed`.
pub fn require<'a>(
    rows: impl IntoIterator<Item = Option<&'a str>>,
    needed: Version,
) -> Result<(), TooOld> {
    let oldest = oldest(rows, needed)?;
    match oldest < needed {
        true => Err(TooOld::Below { oldest, needed }),
        false => Ok(()),
    }
}

/// The object versions that all of the services understand.
///
/// # Errors
/// [`TooOld`], as [`oldest`] and if the oldest is below 1.38.
pub fn object_history<'a>(
    rows: impl IntoIterator<Item = Option<&'a str>>,
) -> Result<ObjectHistory, TooOld> {
    let oldest = oldest(rows, OBJECTS)?;
    ObjectHistory::at_most(oldest).ok_or(TooOld::Below {
        oldest,
        needed: Version::new(1, 38),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_row_counts() {
        assert_eq!(oldest([], BACKUP_RPC), Ok(Version::new(2, 4)));
        let rows = [Some("2.4"), Some("2.3")];
        assert_eq!(oldest(rows, BACKUP_RPC), Ok(Version::new(2, 3)));
        assert_eq!(oldest([Some("2.9")], BACKUP_RPC), Ok(BACKUP_RPC));
        assert_eq!(oldest([None], BACKUP_RPC), Err(TooOld::Unpublished));
        assert_eq!(oldest([Some("")], BACKUP_RPC), Err(TooOld::Unpublished));
        assert_eq!(
            oldest([Some("new")], BACKUP_RPC),
            Err(TooOld::NotAVersion("new".into()))
        );
    }

    #[test]
    fn a_fleet_that_is_too_old_is_noticed() {
        assert_eq!(require([Some("3.20"), Some("3.18")], VOLUME_RPC), Ok(()));
        assert!(matches!(
            require([Some("3.16")], VOLUME_RPC),
            Err(TooOld::Below { .. })
        ));
        assert_eq!(
            object_history([Some("1.39"), Some("1.38")]),
            Ok(ObjectHistory::V1_38)
        );
        assert_eq!(object_history([Some("1.40")]), Ok(ObjectHistory::V1_39));
        assert!(matches!(
            object_history([Some("1.37")]),
            Err(TooOld::Below { .. })
        ));
    }
}
