//! JSON as Python's `json.dumps` writes it with its defaults.
//!
//! Where other programs compare texts (`service_metadata`, metadata objects, exported records),
//! ours must be the one that Python would have written: a blank after `,` and `:`, and everything
//! outside ASCII as `\uXXXX`.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};

/// Writes `value` as `json.dumps(value)` would.
///
/// Struct fields keep the order of their declaration, as a Python `dict` keeps that of insertion.
///
/// # Errors
/// Only when `value` cannot be JSON at all, for instance a map whose keys are not strings.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, Python))?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

/// Writes a JSON value, which cannot fail, as `json.dumps(value)` would.
pub fn value_to_string(value: &serde_json::Value) -> String {
    to_string(value).expect("a JSON value is JSON")
}

struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        w: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain = 0;
        for (at, character) in fragment.char_indices() {
            if character.is_ascii() {
                continue;
            }
            w.write_all(&fragment.as_bytes()[plain..at])?;
            plain = at + character.len_utf8();
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(w, "\\u{unit:04x}")?;
            }
        }
        w.write_all(&fragment.as_bytes()[plain..])
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        w: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let text: &[u8] = match escape {
            CharEscape::Quote => b"\\\"",
            CharEscape::ReverseSolidus => b"\\\\",
            CharEscape::Solidus => b"/",
            CharEscape::Backspace => b"\\b",
            CharEscape::FormFeed => b"\\f",
            CharEscape::LineFeed => b"\\n",
            CharEscape::CarriageReturn => b"\\r",
            CharEscape::Tab => b"\\t",
            CharEscape::AsciiControl(byte) => return write!(w, "\\u{byte:04x}"),
        };
        w.write_all(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn blanks_and_escapes_are_pythons() {
        let value = json!({"a": [1, true, null, "зн😀\u{1}\n\"\\/\u{7f}"], "b": {}});
        assert_eq!(
            to_string(&value).unwrap(),
            "{\"a\": [1, true, null, \"\\u0437\\u043d\\ud83d\\ude00\\u0001\\n\\\"\\\\/\u{7f}\"], \"b\": {}}"
        );
    }

    #[test]
    fn fields_keep_their_order() {
        #[derive(serde::Serialize)]
        struct Row {
            z: u8,
            a: u8,
        }
        assert_eq!(
            to_string(&Row { z: 1, a: 2 }).unwrap(),
            r#"{"z": 1, "a": 2}"#
        );
    }

    proptest! {
        #[test]
        fn any_text_survives_and_is_ascii(text: String) {
            let written = value_to_string(&Value::String(text.clone()));
            prop_assert!(written.is_ascii());
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }
}
