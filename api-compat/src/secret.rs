//! A secret in Barbican, read and written as castellan does it
//! (`castellan/key_manager/barbican_key_manager.py`), so that Nova and Cinder can use the copy.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The id of the one key of Cinder's ConfKeyManager.
pub const FIXED_KEY: Uuid = Uuid::nil();

/// Why something is no secret, or none that can be copied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// An id or a reference does not end in a UUID. The text is Barbican's client's.
    #[error("Secret incorrectly specified.")]
    NotAnId,
    /// An answer is not what Barbican says of a secret.
    #[error("The answer is no description of a secret.")]
    NotASecret,
    /// There is nothing in it.
    #[error("The secret has no payload.")]
    Empty,
    /// It says that it is text, and is none.
    #[error("The secret's payload is no text, although it says so.")]
    NotText,
    /// `fixed_key` is not set. The text is Cinder's.
    #[error("config option key_manager.fixed_key is not defined")]
    NoFixedKey,
    /// `fixed_key` is not hexadecimal.
    #[error("config option key_manager.fixed_key is not made of pairs of hexadecimal digits")]
    NotHexadecimal,
}

/// The id of a secret: what is behind the last slash of a reference, or an id as it is.
///
/// # Errors
/// `NotAnId`.
pub fn id(reference: &str) -> Result<Uuid, SecretError> {
    let last = reference.trim_end_matches('/').rsplit('/').next();
    last.and_then(|last| last.parse().ok())
        .ok_or(SecretError::NotAnId)
}

/// What Barbican says of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    name: Option<String>,
    algorithm: Option<String>,
    bit_length: Option<u64>,
    secret_type: String,
    content_type: String,
}

/// What of a key castellan keeps, and not of other secrets.
const KEYS: [&str; 3] = ["symmetric", "public", "private"];

/// The other types that castellan knows.
const OTHERS: [&str; 3] = ["passphrase", "certificate", "opaque"];

const TEXT: &str = "text/plain";
const BYTES: &str = "application/octet-stream";

impl Description {
    /// Reads the answer to `GET /v1/secrets/<id>`.
    ///
    /// # Errors
    /// `NotASecret`; `Empty` if nothing was ever stored in it.
    pub fn from_answer(answer: &Value) -> Result<Self, SecretError> {
        let text = |key: &str| answer[key].as_str().map(str::to_owned);
        let answered = answer.as_object().ok_or(SecretError::NotASecret)?;
        let secret_type = answered.get("secret_type").ok_or(SecretError::NotASecret)?;
        let secret_type = secret_type.as_str().unwrap_or("opaque");
        let is_key = KEYS.contains(&secret_type);
        let known = is_key || OTHERS.contains(&secret_type);
        Ok(Self {
            name: text("name"),
            algorithm: text("algorithm").filter(|_| is_key),
            bit_length: answer["bit_length"].as_u64().filter(|_| is_key),
            secret_type: if known { secret_type } else { "opaque" }.to_owned(),
            content_type: answer["content_types"]["default"]
                .as_str()
                .ok_or(SecretError::Empty)?
                .to_owned(),
        })
    }

    /// The fixed key of Cinder's ConfKeyManager.
    pub fn of_fixed_key(key: &SecretSlice<u8>) -> Self {
        Self {
            name: None,
            algorithm: Some("AES".to_owned()),
            bit_length: Some(key.expose_secret().len() as u64 * 8),
            secret_type: "symmetric".to_owned(),
            content_type: BYTES.to_owned(),
        }
    }

    /// What to accept of `GET /v1/secrets/<id>/payload`.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The body of `POST /v1/secrets/` for a copy. Mode, expiration and access list are not copied:
    /// castellan's objects have none.
    ///
    /// # Errors
    /// `Empty`, `NotText`.
    pub fn copy(&self, payload: &SecretSlice<u8>) -> Result<SecretString, SecretError> {
        let payload = payload.expose_secret();
        if payload.is_empty() {
            return Err(SecretError::Empty);
        }
        let mut body = Map::new();
        let mut set = |key: &str, value: Value| {
            if !value.is_null() {
                body.insert(key.to_owned(), value);
            }
        };
        set("name", json!(self.name));
        set("algorithm", json!(self.algorithm));
        set("bit_length", json!(self.bit_length));
        set("secret_type", json!(self.secret_type));
        if self.content_type == TEXT {
            let text = str::from_utf8(payload).map_err(|_| SecretError::NotText)?;
            set("payload", json!(text));
            set("payload_content_type", json!(TEXT));
        } else {
            set("payload", json!(BASE64.encode(payload)));
            set("payload_content_type", json!(BYTES));
            set("payload_content_encoding", json!("base64"));
        }
        Ok(Value::Object(body).to_string().into())
    }
}

/// The bytes of `[key_manager] fixed_key`.
///
/// # Errors
/// `NotHexadecimal`; `Empty` if there are none.
pub fn fixed_key(digits: &SecretString) -> Result<SecretSlice<u8>, SecretError> {
    let digits = digits.expose_secret().as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let digit = |at: usize| {
            pair.get(at)
                .and_then(|digit| char::from(*digit).to_digit(16))
        };
        u8::try_from(digit(0)? << 4 | digit(1)?).ok()
    });
    let bytes: Vec<u8> = pairs
        .collect::<Option<_>>()
        .ok_or(SecretError::NotHexadecimal)?;
    match bytes.is_empty() {
        true => Err(SecretError::Empty),
        false => Ok(bytes.into()),
    }
}

/// The body of `PUT /v1/secrets/<id>/acl` that lets a user read a secret of another project.
pub fn readable_by(user: &str) -> impl fmt::Display {
    json!({"read": {"users": [user]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x00, 0xff, 0x80, 0x41];

    fn described(answer: Value) -> Result<Description, SecretError> {
        Description::from_answer(&answer)
    }

    fn copied(answer: Value, payload: &[u8]) -> Result<Value, SecretError> {
        let body = described(answer)?.copy(&payload.to_vec().into())?;
        Ok(serde_json::from_str(body.expose_secret()).unwrap())
    }

    /// As Barbican 23 answers for a volume's key.
    fn symmetric() -> Value {
        json!({
            "created": "2026-11-21T11:37:06", "updated": "2026-11-21T11:37:06", "status": "ACTIVE",
            "name": null, "secret_type": "symmetric", "expiration": null, "algorithm": "aes",
            "bit_length": 256, "mode": "cbc", "creator_id": "5e7626269911456398a33b60ef06f4ac",
            "content_types": {"default": "application/octet-stream"},
            "secret_ref": "http://127.0.0.1:9311/v1/secrets/77405238-40b4-4a56-ae95-c5b872b25e04",
            "consumers": [],
        })
    }

    #[test]
    fn a_key_is_copied_as_castellan_stores_it() {
        assert_eq!(
            copied(symmetric(), &KEY),
            Ok(json!({
                "algorithm": "aes", "bit_length": 256, "secret_type": "symmetric",
                "payload": "AP+AQQ==", "payload_content_type": "application/octet-stream",
                "payload_content_encoding": "base64",
            }))
        );
    }

    #[test]
    fn a_passphrase_stays_text_and_has_no_algorithm() {
        let mut answer = symmetric();
        answer["secret_type"] = json!("passphrase");
        answer["name"] = json!("of a volume");
        answer["content_types"]["default"] = json!("text/plain");
        assert_eq!(
            copied(answer.clone(), "pä\"ss".as_bytes()),
            Ok(json!({
                "name": "of a volume", "secret_type": "passphrase", "payload": "pä\"ss",
                "payload_content_type": "text/plain",
            }))
        );
        assert_eq!(copied(answer, &KEY), Err(SecretError::NotText));
    }

    #[test]
    fn what_castellan_does_not_know_is_opaque() {
        for odd in [json!("from the future"), Value::Null] {
            let mut answer = symmetric();
            answer["secret_type"] = odd;
            assert_eq!(copied(answer, &KEY).unwrap()["secret_type"], "opaque");
        }
    }

    #[test]
    fn what_is_not_there_is_not_copied() {
        let mut answer = symmetric();
        assert_eq!(copied(answer.clone(), &[]), Err(SecretError::Empty));
        answer.as_object_mut().unwrap().remove("content_types");
        assert_eq!(described(answer), Err(SecretError::Empty));
        for odd in [json!("x"), json!({}), Value::Null] {
            assert_eq!(described(odd), Err(SecretError::NotASecret));
        }
    }

    #[test]
    fn a_reference_ends_in_the_id() {
        let plain = "77405238-40b4-4a56-ae95-c5b872b25e04";
        let wanted: Uuid = plain.parse().unwrap();
        for reference in [
            plain,
            &format!("http://h:9311/v1/secrets/{plain}"),
            &format!("{plain}/"),
        ] {
            assert_eq!(id(reference), Ok(wanted));
        }
        for odd in [
            "",
            "/",
            "x",
            "../orders",
            "77405238-40b4-4a56-ae95-c5b872b25e04?force=1",
        ] {
            assert_eq!(id(odd), Err(SecretError::NotAnId));
        }
    }

    #[test]
    fn the_fixed_key_is_hexadecimal() {
        let read = |digits: &str| fixed_key(&digits.into()).map(|key| key.expose_secret().to_vec());
        assert_eq!(read("00fF8041"), Ok(KEY.to_vec()));
        for odd in ["0", "0g", "00 ", "é"] {
            assert_eq!(read(odd), Err(SecretError::NotHexadecimal));
        }
        assert_eq!(read(""), Err(SecretError::Empty));
        let description = Description::of_fixed_key(&KEY.to_vec().into());
        let body = description.copy(&KEY.to_vec().into()).unwrap();
        let body: Value = serde_json::from_str(body.expose_secret()).unwrap();
        assert_eq!(
            (&body["algorithm"], &body["bit_length"]),
            (&json!("AES"), &json!(32))
        );
    }
}
