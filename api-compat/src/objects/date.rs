//! Dates on the wire: `2026-11-20T20:43:34Z`, without fractions (oslo_versionedobjects
//! `_utils.py`). Every other ISO 8601 spelling is read; one without a zone is UTC.

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(crate) fn to_text(time: &DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(crate) fn from_text(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
        .into_iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .map(|time| time.and_utc())
}

pub(crate) fn serialize<S: Serializer>(
    time: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_str(&to_text(time)),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<DateTime<Utc>>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        None => Ok(None),
        Some(text) => from_text(&text)
            .map(Some)
            .ok_or_else(|| D::Error::custom(format!("{text:?} is not a date"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_one_moment() {
        for text in [
            "2026-11-20T20:43:34Z",
            "2026-11-20T20:43:34",
            "2026-11-20 20:43:34",
            "2026-11-20T20:43:34.999999",
            "2026-11-20T20:43:34.5Z",
            "2026-11-20T22:43:34+02:00",
        ] {
            let time = from_text(text).unwrap_or_else(|| panic!("{text:?} was refused"));
            assert_eq!(to_text(&time), "2026-11-20T20:43:34Z");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = from_text(&text);
        }
    }
}
