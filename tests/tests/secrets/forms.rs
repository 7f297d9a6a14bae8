//! The shapes in which a secret may appear in a text.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::json;

/// A secret that reaches the worker, under the name by which a failure tells of it.
#[derive(Clone)]
pub struct Secret {
    pub name: String,
    forms: Vec<String>,
}

impl Secret {
    /// A text.
    pub fn new(name: &str, text: &str) -> Self {
        let mut secret = Self::of_bytes(name, text.as_bytes());
        let once = escaped(text);
        let texts = [text.to_owned(), escaped(&once), once];
        let percent = [encoded(text, ""), encoded(text, "/")];
        secret.forms.extend(texts.into_iter().chain(percent));
        secret
    }

    /// What need not be text, such as a key.
    pub fn of_bytes(name: &str, bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 16, "{name} is too short to be told apart");
        let hex = bytes.iter().map(|byte| format!("{byte:02x}"));
        let listed: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let mut forms = vec![hex.collect(), listed.join(", ")];
        for shift in 0..3 {
            forms.extend([
                within(&STANDARD, bytes, shift),
                within(&URL_SAFE, bytes, shift),
            ]);
        }
        Self {
            name: name.to_owned(),
            forms,
        }
    }

    /// Where the secret is in a text, with what stands around it.
    pub fn find(&self, text: &str) -> Option<String> {
        let at = self.forms.iter().find_map(|form| text.find(form))?;
        let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
        Some(text[start..].chars().take(400).collect())
    }
}

/// As it stands in a JSON string.
fn escaped(text: &str) -> String {
    json!(text).to_string().trim_matches('"').to_owned()
}

/// As it stands in a URL.
fn encoded(text: &str, safe: &str) -> String {
    let encode = |byte: u8| {
        let character = char::from(byte);
        match byte.is_ascii_alphanumeric() || "-._~".contains(character) || safe.contains(character)
        {
            true => character.to_string(),
            false => format!("%{byte:02X}"),
        }
    };
    text.bytes().map(encode).collect()
}

/// What base64 makes of it whatever follows, and whatever `shift` bytes are before it: a name and a colon,
/// say.
fn within(alphabet: &impl base64::Engine, bytes: &[u8], shift: usize) -> String {
    let whole = alphabet.encode([&vec![0; shift], bytes].concat());
    let (start, end) = ((shift * 8).div_ceil(6), (shift + bytes.len()) * 8 / 6);
    whole[start..end].to_owned()
}

#[test]
fn a_secret_is_found_in_every_form() {
    let text = "Pl4nted/\"b+r\\oker=secret";
    let secret = Secret::new("a password", text);
    let login = STANDARD.encode(format!("\0openstack\0{text}\0"));
    let message = json!({"oslo.message": json!({"password": text}).to_string()});
    for said in [
        format!("before\nthe password is {text}"),
        format!("{:?}", Some(text)),
        format!("{:?}", text.as_bytes()),
        format!("Authorization: Basic {login}"),
        message.to_string(),
        "rabbit://x:Pl4nted%2F%22b%2Br%5Coker%3Dsecret@h".to_owned(),
    ] {
        assert!(secret.find(&said).is_some(), "{said}");
    }
    assert!(secret.find("Pl4nted/ is another").is_none());
}
