//! What of a metadata object is applied to the volume that was restored.

use serde_json::Value;

use super::{Pairs, Recorded, RecordedBase};
use crate::excerpt::excerpt;

/// The volume that was restored, as far as the decision looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// `volumes.display_name`.
    pub display_name: Option<&'a str>,
    /// `volumes.volume_type_id`.
    pub volume_type_id: Option<&'a str>,
    /// Whether the type that is recorded still exists.
    pub recorded_type_exists: bool,
}

/// One change of the target, to be written in the order of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `volumes.volume_type_id`.
    VolumeType(String),
    /// `volumes.display_name` and `volumes.display_description`.
    Name {
        /// The name.
        name: String,
        /// The description.
        description: Option<String>,
    },
    /// `volumes.encryption_key_id`: the key of the volume that was backed up, which the caller
    /// then replaces by a copy of the backup's; none takes the target's key away.
    EncryptionKey(Option<String>),
    /// These and no other rows in `volume_metadata`.
    UserMetadata(Pairs),
    /// These and no other rows in `volume_glance_metadata`, and the volume is bootable.
    GlanceMetadata(Pairs),
}

/// An encrypted volume cannot become readable as a volume of the target's type. The texts are
/// Cinder's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The target has no type, and the recorded one is gone.
    #[error("The source volume type '{0}' is not available.")]
    TypeUnavailable(String),
    /// The target has another type.
    #[error(
        "The source volume type '{source_type}' is different than the destination volume type \
         '{target_type}'."
    )]
    TypeDiffers {
        /// The recorded type.
        source_type: String,
        /// The target's type.
        target_type: String,
    },
}

/// Names under which the API makes a volume to restore to.
const AUTOMATIC_NAME: &str = "restore_backup_";

/// Decides what to change. It depends on nothing that a restore writes, so it can be asked before
/// the first byte is.
///
/// # Errors
/// [`RestoreError`] if the backup is of an encrypted volume and the types do not fit.
pub fn plan_restore(recorded: &Recorded, target: Target<'_>) -> Result<Vec<Change>, RestoreError> {
    let mut changes = Vec::new();
    if let Some(base) = &recorded.base {
        let key = base
            .encryption_key_id
            .clone()
            .filter(|_| recorded.version >= 2);
        if let Some(Some(_)) = &key {
            changes.extend(volume_type(base, target)?);
        }
        changes.extend(name(base, target));
        changes.extend(key.map(Change::EncryptionKey));
    }
    let sections = [
        (&recorded.user, Change::UserMetadata as fn(Pairs) -> Change),
        (&recorded.glance, Change::GlanceMetadata),
    ];
    for (section, change) in sections {
        if let Some(section) = section {
            let pairs = section
                .iter()
                .map(|(key, value)| (key.clone(), text(value)));
            changes.push(change(pairs.collect()));
        }
    }
    Ok(changes)
}

/// The columns hold texts; `str()` is what Python does with anything else.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "None".to_owned(),
        other => other.to_string(),
    }
}

/// A name is given only to a volume that has none of its own.
fn name(base: &RecordedBase, target: Target<'_>) -> Option<Change> {
    let own = target.display_name.unwrap_or_default();
    let name = base.display_name.clone().filter(|name| !name.is_empty())?;
    (own.is_empty() || own.starts_with(AUTOMATIC_NAME)).then(|| Change::Name {
        name,
        description: base.display_description.clone(),
    })
}

fn volume_type(base: &RecordedBase, target: Target<'_>) -> Result<Option<Change>, RestoreError> {
    let recorded = base.volume_type_id.as_deref();
    match (recorded, target.volume_type_id) {
        (recorded, own) if recorded == own => Ok(None),
        (Some(recorded), None) if target.recorded_type_exists => {
            Ok(Some(Change::VolumeType(recorded.to_owned())))
        }
        (recorded, None) => Err(RestoreError::TypeUnavailable(excerpt(
            &recorded.unwrap_or("None"),
        ))),
        (recorded, Some(own)) => Err(RestoreError::TypeDiffers {
            source_type: excerpt(&recorded.unwrap_or("None")),
            target_type: own.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume_metadata::decode;
    use serde_json::json;

    const TARGET: Target<'static> = Target {
        display_name: Some("restore_backup_x"),
        volume_type_id: Some("t"),
        recorded_type_exists: true,
    };

    fn plan(recorded: Value, target: Target<'_>) -> Result<Vec<Change>, RestoreError> {
        plan_restore(&decode(recorded.to_string().as_bytes()).unwrap(), target)
    }

    fn base(version: i64, name: &str, key: Value) -> Value {
        json!({"version": version, "volume-base-metadata": {
            "display_name": name, "display_description": "d", "encryption_key_id": key,
            "volume_type_id": "t", "status": "backing-up",
        }})
    }

    fn named(name: &str) -> Change {
        Change::Name {
            name: name.into(),
            description: Some("d".into()),
        }
    }

    #[test]
    fn a_volume_keeps_a_name_of_its_own() {
        let with = |name| Target {
            display_name: name,
            ..TARGET
        };
        for own in [None, Some(""), Some("restore_backup_x")] {
            assert_eq!(
                plan(base(1, "vol1", json!(null)), with(own)),
                Ok(vec![named("vol1")])
            );
        }
        assert_eq!(
            plan(base(1, "vol1", json!(null)), with(Some("mine"))),
            Ok(vec![])
        );
        assert_eq!(plan(base(1, "", json!(null)), with(None)), Ok(vec![]));
    }

    #[test]
    fn the_key_is_restored_since_version_2() {
        let key = |key: Option<&str>| Change::EncryptionKey(key.map(Into::into));
        assert_eq!(plan(base(1, "", json!("k")), TARGET), Ok(vec![]));
        assert_eq!(
            plan(base(2, "", json!("k")), TARGET),
            Ok(vec![key(Some("k"))])
        );
        assert_eq!(plan(base(2, "", json!(null)), TARGET), Ok(vec![key(None)]));
        let without = json!({"version": 2, "volume-base-metadata": {}});
        assert_eq!(plan(without, TARGET), Ok(vec![]));
    }

    #[test]
    fn an_encrypted_backup_needs_its_type() {
        let untyped = Target {
            volume_type_id: None,
            ..TARGET
        };
        assert_eq!(
            plan(base(2, "", json!("k")), untyped),
            Ok(vec![
                Change::VolumeType("t".into()),
                Change::EncryptionKey(Some("k".into()))
            ])
        );
        let gone = Target {
            recorded_type_exists: false,
            ..untyped
        };
        let error = plan(base(2, "", json!("k")), gone).unwrap_err();
        assert_eq!(
            error.to_string(),
            "The source volume type 't' is not available."
        );
        let other = Target {
            volume_type_id: Some("u"),
            ..TARGET
        };
        let error = plan(base(2, "", json!("k")), other).unwrap_err();
        assert_eq!(
            error.to_string(),
            "The source volume type 't' is different than the destination volume type 'u'."
        );
        assert!(plan(base(2, "", json!(null)), other).is_ok());
    }

    #[test]
    fn sections_that_are_not_there_change_nothing() {
        assert_eq!(plan(json!({"version": 2}), TARGET), Ok(vec![]));
        let both = json!({
            "version": 2, "volume-metadata": {"k": "v"},
            "volume-glance-metadata": {"os": "linux", "min_ram": 0},
        });
        let pairs = |list: &[(&str, &str)]| -> Pairs {
            list.iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect()
        };
        assert_eq!(
            plan(both, TARGET),
            Ok(vec![
                Change::UserMetadata(pairs(&[("k", "v")])),
                Change::GlanceMetadata(pairs(&[("min_ram", "0"), ("os", "linux")])),
            ])
        );
    }
}
