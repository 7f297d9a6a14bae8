//! The types of oslo.config (`oslo_config/types.py`): from text to Rust values.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::error::{Range, Reason};

/// Bounds of a number, both inclusive.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// Smallest value allowed.
    pub min: Option<f64>,
    /// Largest value allowed.
    pub max: Option<f64>,
}

/// A time that an option gives in seconds, at most a hundred years: clocks can tell when that is over.
#[must_use]
pub fn seconds(seconds: u64) -> Duration {
    const CENTURY: u64 = 100 * 366 * 24 * 3600;
    Duration::from_secs(seconds.min(CENTURY))
}

impl Limits {
    fn check(self, number: f64) -> Result<(), Reason> {
        match (self.min, self.max) {
            (Some(min), _) if number < min => Err(Reason::TooSmall(min)),
            (_, Some(max)) if number > max => Err(Reason::TooLarge(max)),
            _ => Ok(()),
        }
    }

    /// The integers within the bounds and within a type's own.
    fn within<T: TryInto<i64>>(self, smallest: T, largest: T) -> Range {
        // Those of 64 bits are no numbers that an operator thinks of.
        let own = |end: T| end.try_into().ok().filter(|end| end.abs_diff(0) < 1 << 62);
        let tighter =
            |own: Option<i64>, bound: Option<f64>| bound.map(|bound| bound as i64).or(own);
        Range {
            min: tighter(own(smallest), self.min),
            max: tighter(own(largest), self.max),
        }
    }
}

/// A type that an option may have.
pub trait OptionType: Sized {
    /// What oslo.config's sample files call it.
    const TYPE_NAME: &'static str;
    /// What may stand here, if that is a closed list.
    const CHOICES: &'static [&'static str] = &[];
    /// Whether the value must never be shown.
    const SECRET: bool = false;
    /// Whether the values of all files count, instead of the last.
    const MULTI: bool = false;

    /// Reads the value out of the texts that an option was given, oldest first. There is no text
    /// at all when the option is neither set nor has a default.
    ///
    /// # Errors
    /// The reason why the texts are no such value.
    fn parse(texts: &[String], limits: Limits) -> Result<Self, Reason>;

    /// What `$name` of this option stands for; `None` if it has no text of its own.
    fn text(&self) -> Option<String>;
}

fn last(texts: &[String]) -> Result<&str, Reason> {
    texts.last().map(String::as_str).ok_or(Reason::Missing)
}

impl OptionType for String {
    const TYPE_NAME: &'static str = "string value";

    fn parse(texts: &[String], _: Limits) -> Result<Self, Reason> {
        last(texts).map(str::to_owned)
    }

    fn text(&self) -> Option<String> {
        Some(self.clone())
    }
}

impl OptionType for PathBuf {
    const TYPE_NAME: &'static str = "string value";

    fn parse(texts: &[String], _: Limits) -> Result<Self, Reason> {
        last(texts).map(Self::from)
    }

    fn text(&self) -> Option<String> {
        self.to_str().map(str::to_owned)
    }
}

impl OptionType for SocketAddr {
    const TYPE_NAME: &'static str = "host address and port";

    fn parse(texts: &[String], _: Limits) -> Result<Self, Reason> {
        let text = last(texts)?;
        text.parse()
            .map_err(|_| Reason::NotAnAddress(text.to_owned()))
    }

    fn text(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl OptionType for SecretString {
    const TYPE_NAME: &'static str = "string value";
    const SECRET: bool = true;

    fn parse(texts: &[String], _: Limits) -> Result<Self, Reason> {
        last(texts).map(Self::from)
    }

    fn text(&self) -> Option<String> {
        Some(secrecy::ExposeSecret::expose_secret(self).to_owned())
    }
}

impl OptionType for bool {
    const TYPE_NAME: &'static str = "boolean value";

    fn parse(texts: &[String], _: Limits) -> Result<Self, Reason> {
        let text = last(texts)?;
        match text.to_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Ok(true),
            "false" | "0" | "off" | "no" => Ok(false),
            _ => Err(Reason::NotABoolean(text.to_owned())),
        }
    }

    fn text(&self) -> Option<String> {
        Some(if *self { "True" } else { "False" }.to_owned())
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl OptionType for $integer {
            const TYPE_NAME: &'static str = "integer value";

            fn parse(texts: &[String], limits: Limits) -> Result<Self, Reason> {
                let text = last(texts)?.trim();
                if text.is_empty() {
                    return Err(Reason::Missing);
                }
                let number: Self = without_underscores(text)
                    .and_then(|digits| digits.parse().ok())
                    .ok_or_else(|| Reason::NotAnInteger {
                        text: text.to_owned(),
                        range: limits.within(Self::MIN, Self::MAX),
                    })?;
                limits.check(number as f64)?;
                Ok(number)
            }

            fn text(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )*};
}

integers!(u16, u32, u64, usize, i64);

impl OptionType for f64 {
    const TYPE_NAME: &'static str = "floating point value";

    fn parse(texts: &[String], limits: Limits) -> Result<Self, Reason> {
        let text = last(texts)?.trim();
        if text.is_empty() {
            return Err(Reason::Missing);
        }
        let number: Self = without_underscores(text)
            .and_then(|digits| digits.parse().ok())
            .filter(|number: &Self| number.is_finite())
            .ok_or_else(|| Reason::NotANumber(text.to_owned()))?;
        limits.check(number)?;
        Ok(number)
    }

    fn text(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }
}

/// Python allows single underscores between digits.
fn without_underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let misplaced = bytes
        .iter()
        .enumerate()
        .any(|(at, byte)| *byte == b'_' && !(at > 0 && digit(at - 1) && digit(at + 1)));
    (!misplaced).then(|| text.replace('_', ""))
}

/// Nothing set, or set to nothing, is `None`: Python's None and empty string, which its services
/// tell apart nowhere.
impl<T: OptionType> OptionType for Option<T> {
    const TYPE_NAME: &'static str = T::TYPE_NAME;
    const CHOICES: &'static [&'static str] = T::CHOICES;
    const SECRET: bool = T::SECRET;

    fn parse(texts: &[String], limits: Limits) -> Result<Self, Reason> {
        match texts.last() {
            Some(text) if !text.trim().is_empty() => T::parse(texts, limits).map(Some),
            _ => Ok(None),
        }
    }

    fn text(&self) -> Option<String> {
        self.as_ref().map_or(Some(String::new()), T::text)
    }
}

/// `ListOpt`: one value, split at commas.
impl OptionType for Vec<String> {
    const TYPE_NAME: &'static str = "list value";

    fn parse(texts: &[String], _: Limits) -> Result<Self, Reason> {
        let text = texts.last().map_or("", String::as_str).trim();
        let text = text.trim_end_matches(',');
        if text.is_empty() {
            return Ok(Self::new());
        }
        Ok(text.split(',').map(|item| item.trim().to_owned()).collect())
    }

    fn text(&self) -> Option<String> {
        None
    }
}

/// `MultiStrOpt`: the option may be repeated, and the values of all files count in the order in
/// which they are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Multi(pub Vec<String>);

impl OptionType for Multi {
    const TYPE_NAME: &'static str = "multi valued";
    const MULTI: bool = true;

    fn parse(texts: &[String], _: Limits) -> Result<Self, Reason> {
        Ok(Self(texts.to_vec()))
    }

    fn text(&self) -> Option<String> {
        None
    }
}

/// Defines an enum whose variants are the choices of an option.
macro_rules! choices {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// The choice as it is written in a configuration file.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl $crate::config::value::OptionType for $name {
            const TYPE_NAME: &'static str = "string value";
            const CHOICES: &'static [&'static str] = &[$($text),*];

            fn parse(
                texts: &[String],
                limits: $crate::config::value::Limits,
            ) -> Result<Self, $crate::config::error::Reason> {
                let text = String::parse(texts, limits)?;
                match text.as_str() {
                    $($text => Ok(Self::$variant),)*
                    _ => Err($crate::config::error::Reason::NotAChoice {
                        choices: Self::CHOICES,
                        found: text,
                    }),
                }
            }

            fn text(&self) -> Option<String> {
                Some(self.as_str().to_owned())
            }
        }
    };
}
pub(super) use choices;

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::options::without_effect::FailoverStrategy;

    #[derive(Deserialize)]
    struct Case {
        r#type: String,
        raw: String,
        min: Option<f64>,
        max: Option<f64>,
        #[serde(default)]
        value: Value,
        #[serde(default)]
        error: bool,
    }

    #[test]
    fn an_address_has_a_port() {
        let parse = |text: &str| SocketAddr::parse(&[text.to_owned()], Limits::default());
        for text in ["127.0.0.1:9754", "[::]:9754"] {
            let parsed = parse(text).map(|address| address.text());
            assert_eq!(parsed, Ok(Some(text.to_owned())));
        }
        for text in ["127.0.0.1", "::", "localhost:9754", ":9754", "9754"] {
            assert_eq!(parse(text), Err(Reason::NotAnAddress(text.to_owned())));
        }
    }

    #[test]
    fn reads_what_the_real_types_read() {
        let cases = include_str!("../../tests/fixtures/oslo_config/types.json");
        let cases: Vec<Case> = serde_json::from_str(cases).unwrap();
        for case in cases {
            let (min, max) = (case.min, case.max);
            let limits = Limits { min, max };
            let texts = [case.raw.clone()];
            let value = match case.r#type.as_str() {
                "boolean" => bool::parse(&texts, limits).map(|v| json!(v)),
                "integer" => Option::<i64>::parse(&texts, limits).map(|v| json!(v)),
                "float" => Option::<f64>::parse(&texts, limits).map(|v| json!(v)),
                "list" => Vec::<String>::parse(&texts, limits).map(|v| json!(v)),
                "choice" => FailoverStrategy::parse(&texts, limits).map(|v| json!(v.as_str())),
                other => panic!("unknown type {other}"),
            };
            let expected = (!case.error).then_some(case.value);
            assert_eq!(value.ok(), expected, "{} {:?}", case.r#type, case.raw);
        }
    }

    #[test]
    fn an_empty_number_is_none_where_that_means_something_and_an_error_elsewhere() {
        let empty = [String::new()];
        let limits = Limits::default();
        assert_eq!(Option::<u64>::parse(&empty, limits), Ok(None));
        assert_eq!(u64::parse(&empty, limits), Err(Reason::Missing));
        assert_eq!(String::parse(&empty, limits), Ok(String::new()));
    }

    #[test]
    fn numbers_stay_within_their_type() {
        let limits = Limits::default();
        for text in ["-1", "99999999999999999999", "4294967296"] {
            let texts = [text.to_owned()];
            assert!(u32::parse(&texts, limits).is_err(), "{text}");
        }
        for text in ["inf", "nan", "-inf"] {
            assert!(f64::parse(&[text.to_owned()], limits).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_told_what_would_be_one() {
        fn told<T: OptionType>(min: Option<f64>, max: Option<f64>) -> String {
            let outcome = T::parse(&["many".to_owned()], Limits { min, max });
            outcome.err().unwrap().to_string()
        }
        let told_of = [
            told::<u64>(None, None),
            told::<u64>(Some(10.0), None),
            told::<usize>(Some(1.0), Some(64.0)),
            told::<u16>(None, None),
            told::<i64>(None, None),
            told::<i64>(Some(-1.0), None),
        ];
        let expected = [
            " that is 0 or more",
            " that is 10 or more",
            " from 1 to 64",
            " from 0 to 65535",
            "",
            " that is -1 or more",
        ];
        let expected = expected.map(|range| format!("\"many\" is not an integer{range}"));
        assert_eq!(told_of, expected);
    }

    #[test]
    fn secrets_do_not_show() {
        let texts = ["hunter2".to_owned()];
        let secret = SecretString::parse(&texts, Limits::default()).unwrap();
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
