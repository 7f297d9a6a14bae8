//! `backups.service_metadata` of a Ceph backup: `{"base": "<image>"}`.
//!
//! Cinder writes exactly this text and reads only the key `base`; the column holds 255
//! characters, of which an image's name takes 95.

use serde::{Deserialize, Serialize};

use crate::names::BackupImage;
use crate::python_json;

/// The text cannot be understood. Python's workers fail on it as well.
#[derive(Debug, thiserror::Error)]
#[error("service metadata is not a JSON object with a base image: {0}")]
pub struct NotServiceMetadata(#[from] serde_json::Error);

#[derive(Serialize, Deserialize)]
struct ServiceMetadata {
    base: String,
}

/// The text for a backup that lies in `image`.
pub fn format(image: &BackupImage) -> String {
    let base = image.to_string();
    python_json::to_string(&ServiceMetadata { base }).expect("a text is JSON")
}

/// The name of the image that the text tells. It is not yet known to be a backup's image, nor
/// whose: see [`crate::names::base_image`].
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

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = base(&text);
        }
    }
}
