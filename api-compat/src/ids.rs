//! Ids that have proven to be UUIDs before they may become part of a name.
//!
//! Image, snapshot and object names are put together from ids (`volume-<id>.backup.<id>`), and
//! ids arrive in messages, rows and imported records. A value of one of these types cannot carry
//! a slash, an `@` or a dot into a name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text is not a UUID in the form that OpenStack writes: 8-4-4-4-12 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not a UUID")]
pub struct NotAnId {
    what: &'static str,
    text: String,
}

impl NotAnId {
    /// Keeps enough of a hostile text to recognise it, not all of it.
    fn new(what: &'static str, text: &str) -> Self {
        Self {
            what,
            text: text.chars().take(64).collect(),
        }
    }
}

fn canonical(text: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(text).ok()?;
    let mut buffer = Uuid::encode_buffer();
    (uuid.hyphenated().encode_lower(&mut buffer) == text).then_some(uuid)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// The id as a UUID.
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                canonical(text)
                    .map(Self)
                    .ok_or_else(|| NotAnId::new($what, text))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAnId;

            fn try_from(text: String) -> Result<Self, NotAnId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

id!(
    /// The id of a backup (`backups.id`).
    BackupId,
    "backup id"
);
id!(
    /// The id of a volume (`volumes.id` or `volumes._name_id`).
    VolumeId,
    "volume id"
);
id!(
    /// The id of a snapshot (`snapshots.id`).
    SnapshotId,
    "snapshot id"
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "246c011b-8fab-4538-90c2-f0ded6b69811";

    #[test]
    fn canonical_text_round_trips() {
        let id: BackupId = TEXT.parse().unwrap();
        assert_eq!(id.to_string(), TEXT);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("{TEXT:?}"));
    }

    #[test]
    fn every_other_spelling_is_refused() {
        for text in [
            "",
            "base",
            "246C011B-8FAB-4538-90C2-F0DED6B69811",
            "246c011b8fab453890c2f0ded6b69811",
            "{246c011b-8fab-4538-90c2-f0ded6b69811}",
            "urn:uuid:246c011b-8fab-4538-90c2-f0ded6b69811",
            "246c011b-8fab-4538-90c2-f0ded6b69811@x",
            "../246c011b-8fab-4538-90c2-f0ded6b698",
        ] {
            assert!(text.parse::<VolumeId>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn the_error_does_not_repeat_a_long_text() {
        let error = "x".repeat(10_000).parse::<VolumeId>().unwrap_err();
        assert!(error.to_string().len() < 200);
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_it_was(text in "\\PC{0,40}") {
            if let Ok(id) = text.parse::<BackupId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn every_uuid_is_an_id(bits: u128) {
            let id = SnapshotId::from(Uuid::from_u128(bits));
            prop_assert_eq!(id.to_string().parse::<SnapshotId>(), Ok(id));
        }
    }
}
