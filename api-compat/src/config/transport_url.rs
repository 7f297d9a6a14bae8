//! `transport_url`: where the brokers are (oslo.messaging's `transport.py`, `TransportURL.parse`).
//!
//! `rabbit://user:password@host:port[,user2:password2@host2:port2…]/virtual_host?query`

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::error::Reason;
use super::url::{decoded, query_pairs};
use super::value::{Limits, OptionType};

const PORT: u16 = 5672;

/// One or more brokers, and what is the same for all of them.
#[derive(Debug, Clone)]
pub struct TransportUrl {
    /// The brokers in the order of the URL; never empty.
    pub hosts: Vec<Host>,
    /// The virtual host, decoded. `/` if the URL names none.
    pub virtual_host: String,
    /// Options of `[oslo_messaging_rabbit]` that this URL overrides. Repeated names are joined
    /// with commas.
    pub query: BTreeMap<String, String>,
    /// Whether some hosts come with user and password and others without.
    pub mixed_credentials: bool,
}

/// A broker and how to log in. What the URL leaves out is as with kombu: `guest`, `localhost`.
#[derive(Debug, Clone)]
pub struct Host {
    /// User.
    pub user: String,
    /// Password.
    pub password: SecretString,
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Why a transport URL cannot be used. No text holds a part of the URL: it may be the password's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransportUrlError {
    /// There is no `scheme://`.
    #[error("the URL does not start with rabbit://")]
    NoScheme,
    /// The scheme is not RabbitMQ's.
    #[error("the URL's scheme is not supported: only rabbit is")]
    UnsupportedScheme,
    /// `#`, or a `/` or `?` before the `@`.
    #[error("#, / and ? in user or password must be percent-encoded (%23, %2F, %3F)")]
    NotEncoded,
    /// Something that is no port stands where one is expected.
    #[error("a port is not a number up to 65535 (or user or password is not percent-encoded)")]
    Port,
    /// `[` without `]`, or text behind it.
    #[error("an IPv6 address in brackets is not closed")]
    Brackets,
}

impl TransportUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// Every URL that oslo.messaging refuses, and those that it would misread.
    pub fn parse(url: &str) -> Result<Self, TransportUrlError> {
        // A long list of hosts may be continued on the next line.
        let url = url.replace(['\t', '\r', '\n'], "");
        let (scheme, rest) = url.split_once("://").ok_or(TransportUrlError::NoScheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "rabbit" | "kombu" => {}
            "" => return Err(TransportUrlError::NoScheme),
            _ => return Err(TransportUrlError::UnsupportedScheme),
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (brokers, tail) = rest.split_at(end);
        if rest.contains('#') || (tail.contains('@') && !brokers.contains('@')) {
            return Err(TransportUrlError::NotEncoded);
        }
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));

        let named: Vec<&str> = brokers.split(',').filter(|b| !b.is_empty()).collect();
        let mut hosts = Vec::new();
        for broker in &named {
            hosts.push(Host::parse(broker)?);
        }
        if hosts.is_empty() {
            hosts.push(Host::parse("")?);
        }
        let with_password = named.iter().filter(|b| has_credentials(b)).count();
        let virtual_host = decoded(path.strip_prefix('/').unwrap_or(path));
        Ok(Self {
            hosts,
            virtual_host: non_empty(virtual_host, "/"),
            query: joined(query),
            mixed_credentials: with_password != 0 && with_password != named.len(),
        })
    }
}

impl Host {
    fn parse(broker: &str) -> Result<Self, TransportUrlError> {
        let (credentials, place) = broker.rsplit_once('@').unwrap_or(("", broker));
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        let (host, port) = place_of(place)?;
        Ok(Self {
            user: non_empty(decoded(user), "guest"),
            password: non_empty(decoded(password), "guest").into(),
            host: non_empty(host.to_owned(), "localhost"),
            port,
        })
    }
}

fn has_credentials(broker: &str) -> bool {
    broker
        .rsplit_once('@')
        .is_some_and(|(credentials, _)| credentials.contains(':'))
}

/// oslo.utils' `parse_host_port`: an IPv6 address without brackets has no port.
fn place_of(place: &str) -> Result<(&str, u16), TransportUrlError> {
    let (host, port) = match place.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed
                .split_once(']')
                .ok_or(TransportUrlError::Brackets)?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(TransportUrlError::Brackets),
            }
        }
        None => match place.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (place, None),
        },
    };
    let port = match port.map(str::parse) {
        None | Some(Ok(0)) => PORT,
        Some(Ok(port)) => port,
        Some(Err(_)) => return Err(TransportUrlError::Port),
    };
    Ok((host, port))
}

fn joined(query: &str) -> BTreeMap<String, String> {
    let mut options: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in query_pairs(query) {
        options
            .entry(name)
            .and_modify(|values| {
                values.push(',');
                values.push_str(&value);
            })
            .or_insert(value);
    }
    options
}

fn non_empty(text: String, default: &str) -> String {
    if text.is_empty() {
        default.to_owned()
    } else {
        text
    }
}

impl OptionType for TransportUrl {
    const TYPE_NAME: &'static str = "string value";
    const SECRET: bool = true;

    fn parse(texts: &[String], _: Limits) -> Result<Self, Reason> {
        let text = texts.last().ok_or(Reason::Missing)?;
        Ok(Self::parse(text)?)
    }

    fn text(&self) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;
    use serde::Deserialize;

    use super::*;

    /// User, password, host, port.
    type Broker = (Option<String>, Option<String>, Option<String>, Option<u32>);

    #[derive(Deserialize)]
    struct Case {
        url: String,
        scheme: Option<String>,
        hosts: Option<Vec<Broker>>,
        virtual_host: Option<String>,
        query: Option<BTreeMap<String, String>>,
    }

    fn or<T: Default + PartialEq>(value: Option<T>, default: T) -> T {
        value.filter(|v| *v != T::default()).unwrap_or(default)
    }

    #[test]
    fn reads_what_the_real_library_reads() {
        let cases = include_str!("../../tests/fixtures/oslo_config/transport_url.json");
        let cases: Vec<Case> = serde_json::from_str(cases).unwrap();
        for case in cases {
            let parsed = TransportUrl::parse(&case.url);
            // Python finds out about the rest of these when it loads a driver or connects.
            let known = matches!(case.scheme.as_deref(), Some("rabbit" | "kombu"));
            let hosts = case.hosts.filter(|_| known).map(|hosts| {
                let guest = || "guest".to_owned();
                let hosts = hosts.into_iter().map(|(user, password, host, port)| {
                    let host = or(host, "localhost".to_owned());
                    (
                        or(user, guest()),
                        or(password, guest()),
                        host,
                        or(port, 5672),
                    )
                });
                hosts.collect::<Vec<_>>()
            });
            match (parsed, hosts) {
                (Ok(url), Some(mut hosts)) => {
                    if hosts.is_empty() {
                        let guest = || "guest".to_owned();
                        hosts.push((guest(), guest(), "localhost".to_owned(), 5672));
                    }
                    let parsed: Vec<_> = url
                        .hosts
                        .into_iter()
                        .map(|h| {
                            let password = h.password.expose_secret().to_owned();
                            (h.user, password, h.host, u32::from(h.port))
                        })
                        .collect();
                    assert_eq!(parsed, hosts, "{}", case.url);
                    let virtual_host = or(case.virtual_host, "/".to_owned());
                    assert_eq!(url.virtual_host, virtual_host, "{}", case.url);
                    assert_eq!(Some(url.query), case.query, "{}", case.url);
                }
                (Err(_), None) => {}
                (Err(TransportUrlError::Port), Some(hosts)) => {
                    let unusable = hosts.iter().any(|(.., port)| *port > 65535);
                    assert!(unusable, "{}", case.url);
                }
                (parsed, _) => panic!("{}: {parsed:?}", case.url),
            }
        }
    }

    #[test]
    fn a_slash_in_a_password_may_be_encoded() {
        let url = TransportUrl::parse("rabbit://u:a%2Fb@h").unwrap();
        assert_eq!(url.hosts[0].password.expose_secret(), "a/b");
    }

    #[test]
    fn a_numeric_password_with_a_raw_separator_is_not_taken_for_a_port() {
        for url in [
            "rabbit://u:12/x@h",
            "rabbit://u:12?x@h",
            "rabbit://u:12#x@h",
        ] {
            let error = TransportUrl::parse(url).unwrap_err();
            assert_eq!(error, TransportUrlError::NotEncoded, "{url}");
        }
    }

    #[test]
    fn mixed_credentials_are_noticed() {
        let mixed = |url| TransportUrl::parse(url).unwrap().mixed_credentials;
        assert!(mixed("rabbit://u:p@h1,h2"));
        assert!(!mixed("rabbit://u:p@h1,u:p@h2"));
        assert!(!mixed("rabbit://h1,h2"));
        assert!(!mixed("rabbit://"));
    }

    #[test]
    fn no_password_is_shown() {
        let url = TransportUrl::parse("rabbit://u:hunter2@h1,u:hunter2@h2/").unwrap();
        assert!(!format!("{url:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn never_panics(url in any::<String>()) {
            let _ = TransportUrl::parse(&url);
        }

        #[test]
        fn never_panics_on_what_looks_like_a_url(rest in "([:/@,?#&=%\\[\\]a1]|é){0,40}") {
            let _ = TransportUrl::parse(&format!("rabbit://{rest}"));
        }
    }
}
