//! Dates on the wire: `2026-11-20T20:43:34Z`, without fractions (oslo_versionedobjects
//! `_utils.py`). Every other ISO 8601 spelling is read; one without a zone is UTC.

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike, Utc};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(crate) fn to_text(time: &DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(crate) fn from_text(text: &str) -> Option<DateTime<Utc>> {
    let time = match DateTime::parse_from_rfc3339(text) {
        Ok(time) => time.to_utc(),
        Err(_) => ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
            .into_iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?
            .and_utc(),
    };
    // Python has no other years and no leap seconds: its services cannot read such a date.
    let is_pythons = (1..=9999).contains(&time.year()) && time.nanosecond() < 1_000_000_000;
    is_pythons.then_some(time)
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

    #[test]
    fn what_python_has_no_date_for_is_none() {
        for text in [
            "9999-12-31T23:59:59-01:00",
            "0001-01-01T00:00:00+01:00",
            "0000-12-31T23:59:59Z",
            "+262142-12-31T23:59:59",
            "-0001-01-01 00:00:00",
            "2016-12-31T23:59:60Z",
            "2016-12-31 23:59:60.5",
        ] {
            assert_eq!(from_text(text), None, "{text}");
        }
        for text in ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"] {
            assert!(from_text(text).is_some_and(|time| to_text(&time) == text));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = from_text(&text);
        }
    }
}
