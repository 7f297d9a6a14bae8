//! `backups.service_metadata` of a Ceph backup: `{"base": "<image>"}`.
//!
//! Cinder writes exactly this text and reads only the key `base`; the column holds 255
//! characters, of which an image's name takes 95. A backup of a volume that was not in Ceph has a
//! second key here, `"source": "device"`: it has left no snapshot on its volume.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::excerpt::excerpt;
use crate::names::BackupImage;
use crate::python_json;

/// The text cannot be understood. Python's workers fail on it as well.
#[derive(Debug, thiserror::Error)]
#[error("service metadata is not a JSON object with a base image: {}", excerpt(.0))]
pub struct NotServiceMetadata(#[from] serde_json::Error);

#[derive(Serialize, Deserialize)]
struct ServiceMetadata {
    base: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Value>,
}

/// What `source` says of a backup of a block device or file.
const DEVICE: &str = "device";

/// The text for a backup that lies in `image`.
pub fn format(image: &BackupImage) -> String {
    write(image, None)
}

/// The text for the backup of a block device or file.
pub fn format_of_device(image: &BackupImage) -> String {
    write(image, Some(DEVICE.into()))
}

fn write(image: &BackupImage, source: Option<Value>) -> String {
    let base = image.to_string();
    python_json::to_string(&ServiceMetadata { base, source }).expect("texts are JSON")
}

/// Whether the text is one of [`format_of_device`].
pub fn is_of_device(text: &str) -> bool {
    let metadata: Result<ServiceMetadata, _> = serde_json::from_str(text);
    metadata.is_ok_and(|metadata| metadata.source == Some(DEVICE.into()))
}

/// The name of the image that the text tells. It is not yet known to be a backup's image, nor
/// whose: see [`crate::names::recorded_image`].
///
/// # Errors
/// If the text is no JSON object with a text `base`.
pub fn base(text: &str) -> Result<String, NotServiceMetadata> {
    Ok(serde_json::from_str::<ServiceMetadata>(text)?.base)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BackupId, VolumeId};
    use proptest::prelude::*;
    use uuid::Uuid;

    #[test]
    fn the_text_is_pythons() {
        let image = BackupImage::own(VolumeId::from(Uuid::nil()), BackupId::from(Uuid::nil()));
        let text = format(&image);
        assert_eq!(text, format!("{{\"base\": \"{image}\"}}"));
        assert!(text.len() <= 255);
    }

    #[test]
    fn a_backup_of_a_device_is_known() {
        let image = BackupImage::own(Uuid::nil().into(), Uuid::nil().into());
        let text = format_of_device(&image);
        assert_eq!(
            text,
            format!("{{\"base\": \"{image}\", \"source\": \"device\"}}")
        );
        assert_eq!(base(&text).unwrap(), image.to_string());
        assert!(is_of_device(&text) && text.len() <= 255);
        for other in [&format(&image), "", "{}", r#"{"base": "a", "source": 1}"#] {
            assert!(!is_of_device(other), "{other}");
        }
    }

    #[test]
    fn other_keys_are_tolerated_and_the_base_is_needed() {
        assert_eq!(base(r#"{"base": "a", "digest": [1]}"#).unwrap(), "a");
        for text in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"base": null}"#,
            r#"{"base": 1}"#,
        ] {
            assert!(base(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_long_value_is_not_told_as_a_whole() {
        let text = format!("{:?}", "b".repeat(1 << 20));
        assert!(base(&text).unwrap_err().to_string().len() < 2000);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = base(&text);
        }
    }
}
