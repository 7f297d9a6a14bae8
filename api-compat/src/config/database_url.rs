//! `[database] connection`: SQLAlchemy's URL, taken apart so that nothing in it is lost.
//!
//! `dialect[+driver]://user:password@host:port/database?query`. The query is that of PyMySQL or
//! psycopg2 and is *not* what a Rust driver understands: passed on as it is, `ssl_ca` would be
//! ignored and the connection would be in clear text.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::tls::{Tls, TlsError};
use super::url::{decoded, query_pairs};
use crate::excerpt::excerpt;

/// The database systems that Cinder runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// MySQL or MariaDB.
    MySql,
    /// PostgreSQL.
    Postgres,
    /// SQLite.
    Sqlite,
}

/// Where the database is, and how to connect to it.
#[derive(Debug, Clone)]
pub struct DatabaseUrl {
    /// Which system it is.
    pub backend: Backend,
    /// User.
    pub user: Option<String>,
    /// Password.
    pub password: Option<SecretString>,
    /// Host name or address, without brackets.
    pub host: Option<String>,
    /// TCP port; the system's usual one if `None`.
    pub port: Option<u16>,
    /// Socket to use instead of TCP: a file with MySQL, a directory with PostgreSQL.
    pub unix_socket: Option<PathBuf>,
    /// Name of the database; of its file with SQLite.
    pub database: Option<String>,
    /// Whether and how the connection is encrypted.
    pub tls: Tls,
    /// Character set of the connection; MySQL only.
    pub charset: Option<String>,
    /// What the server's list of connections calls this one; PostgreSQL only.
    pub application_name: Option<String>,
    /// How long the first connection may take.
    pub connect_timeout: Option<Duration>,
    /// How long to wait for a lock that another process holds on the file; SQLite only.
    pub lock_timeout: Option<Duration>,
    /// Names in the query that have no effect here.
    pub unknown: Vec<String>,
}

/// Why a database URL cannot be used. No text holds what may be a part of the password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// It is no URL.
    #[error("the URL does not start with a dialect, as mysql+pymysql://")]
    NoScheme,
    /// Another system.
    #[error("the URL's dialect is not supported: mysql, postgresql and sqlite are")]
    UnsupportedDialect,
    /// A second `@` before the host, which SQLAlchemy takes for a part of the host's name.
    #[error("@ in user or password must be percent-encoded (%40)")]
    NotEncoded,
    /// Something that is no port stands where one is expected.
    #[error("the port is not a number up to 65535 (or user or password is not percent-encoded)")]
    Port,
    /// Several servers of which libpq would take the first that answers.
    #[error("several hosts in the query are not supported: name one address that leads to them")]
    SeveralHosts,
    /// A timeout that is no number of seconds.
    #[error("{0} in the query is not a number of seconds")]
    Seconds(&'static str),
    /// An encryption that cannot be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl DatabaseUrl {
    /// Where the database is, as a log may tell it: without user and password.
    #[must_use]
    pub fn location(&self) -> String {
        if self.backend == Backend::Sqlite {
            return self
                .database
                .clone()
                .unwrap_or_else(|| "no file".to_owned());
        }
        let host = self.host.as_deref().unwrap_or("localhost");
        let server = match (&self.unix_socket, self.port) {
            (Some(socket), _) => socket.display().to_string(),
            (None, Some(port)) if host.contains(':') => format!("[{host}]:{port}"),
            (None, Some(port)) => format!("{host}:{port}"),
            (None, None) => host.to_owned(),
        };
        let database = self.database.as_deref().unwrap_or("no database");
        format!("{database} on {server}")
    }

    /// Parses a URL together with `[database] connection_parameters`, which add to its query, and the
    /// variables from which libpq takes how a connection is encrypted where the URL does not say.
    ///
    /// # Errors
    /// What SQLAlchemy refuses, and requests for encryption that cannot be honoured.
    pub fn parse(
        url: &str,
        parameters: &str,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, DatabaseUrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(DatabaseUrlError::NoScheme)?;
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '+';
        if scheme.is_empty() || !scheme.chars().all(is_word) {
            return Err(DatabaseUrlError::NoScheme);
        }
        let backend = match scheme.split('+').next() {
            Some("mysql" | "mariadb") => Backend::MySql,
            Some("postgresql") => Backend::Postgres,
            Some("sqlite") => Backend::Sqlite,
            _ => return Err(DatabaseUrlError::UnsupportedDialect),
        };
        let (user, password, rest) = credentials(rest);
        let (mut host, mut port, rest) = place(rest)?;
        let (database, own_query) = rest.split_once('?').unwrap_or((rest, ""));
        let database = database.strip_prefix('/').map(decoded);

        let pairs = || query_pairs(own_query).chain(query_pairs(parameters));
        let mut query = Query(pairs().collect());
        let tls = match backend {
            Backend::MySql => Tls::of_pymysql(|name| query.take(name))?,
            Backend::Postgres => Tls::of_libpq(
                |name| query.take(name),
                |variable| environment.get(variable).cloned(),
            )?,
            Backend::Sqlite => Tls::none(),
        };
        let mut socket = None;
        if backend == Backend::MySql {
            socket = query.take("unix_socket");
        }
        if backend == Backend::Postgres {
            if pairs().filter(|(name, _)| name == "host").count() > 1 {
                return Err(DatabaseUrlError::SeveralHosts);
            }
            // As libpq, which takes what begins with a slash for the folder of a socket.
            match query.take("host") {
                Some(folder) if folder.starts_with('/') => socket = Some(folder),
                Some(several) if several.contains(',') => {
                    return Err(DatabaseUrlError::SeveralHosts);
                }
                Some(one) => {
                    let (name, own_port, _) = place(&one)?;
                    host = name.or(host);
                    port = own_port.or(port);
                }
                None => {}
            }
            if let Some(text) = query.take("port") {
                port = Some(text.parse().map_err(|_| DatabaseUrlError::Port)?);
            }
        }
        let url = Self {
            backend,
            user: user.map(decoded),
            password: password.map(|password| decoded(password).into()),
            host,
            port,
            unix_socket: socket.map(PathBuf::from),
            database: database.filter(|name| !name.is_empty()),
            tls,
            charset: query.take_if(backend == Backend::MySql, "charset"),
            application_name: query.take_if(backend == Backend::Postgres, "application_name"),
            connect_timeout: match backend {
                // libpq takes 0 for no limit.
                Backend::MySql | Backend::Postgres => query
                    .seconds("connect_timeout")?
                    .filter(|limit| !limit.is_zero()),
                Backend::Sqlite => None,
            },
            lock_timeout: match backend {
                Backend::Sqlite => query.seconds("timeout")?,
                Backend::MySql | Backend::Postgres => None,
            },
            unknown: query.0.into_keys().collect(),
        };
        // Whoever asks for encryption in words that are not known here must not go without.
        if let Some(name) = url.unknown.iter().find(|name| name.starts_with("ssl")) {
            return Err(TlsError::Unsupported(excerpt(name)).into());
        }
        Ok(url)
    }
}

/// User, password and the rest. As SQLAlchemy's pattern, the password may hold `/`, `?` and `:`.
fn credentials(text: &str) -> (Option<&str>, Option<&str>, &str) {
    let end = text.find([':', '/']).unwrap_or(text.len());
    let (user, after) = text.split_at(end);
    let with_password = after.strip_prefix(':').and_then(|a| a.split_once('@'));
    match (with_password, user.rsplit_once('@')) {
        (Some((password, rest)), _) => (Some(user), Some(password), rest),
        (None, Some((user, _))) => (Some(user), None, &text[user.len() + 1..]),
        (None, None) => (None, None, text),
    }
}

type Place<'a> = (Option<String>, Option<u16>, &'a str);

/// Host, port and the rest.
fn place(text: &str) -> Result<Place<'_>, DatabaseUrlError> {
    let end = text.find(['/', '?']).unwrap_or(text.len());
    let (place, rest) = text.split_at(end);
    let bracketed = place.strip_prefix('[').and_then(|p| p.split_once(']'));
    let (host, port) = match bracketed {
        Some((host, after)) => (host, after.strip_prefix(':')),
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.contains('@') {
        return Err(DatabaseUrlError::NotEncoded);
    }
    let port = match port.map(str::parse) {
        None => None,
        Some(Ok(port)) => Some(port),
        Some(Err(_)) => return Err(DatabaseUrlError::Port),
    };
    Ok(((!host.is_empty()).then(|| host.to_owned()), port, rest))
}

/// Names that are still to be understood. A repeated name's last value counts.
struct Query(BTreeMap<String, String>);

impl Query {
    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn take_if(&mut self, known: bool, name: &str) -> Option<String> {
        if known { self.take(name) } else { None }
    }

    fn seconds(&mut self, name: &'static str) -> Result<Option<Duration>, DatabaseUrlError> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        let seconds = text.parse().ok();
        match seconds.map(Duration::try_from_secs_f64) {
            Some(Ok(duration)) => Ok(Some(duration)),
            _ => Err(DatabaseUrlError::Seconds(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;
    use serde::Deserialize;

    use super::*;
    use crate::config::tls::TlsMode;

    fn parse(url: &str, parameters: &str) -> Result<DatabaseUrl, DatabaseUrlError> {
        DatabaseUrl::parse(url, parameters, &BTreeMap::new())
    }

    #[derive(Deserialize)]
    struct Case {
        url: String,
        parameters: String,
        #[serde(default)]
        error: bool,
        username: Option<String>,
        password: Option<String>,
        host: Option<String>,
        port: Option<u16>,
        database: Option<String>,
        query: Option<BTreeMap<String, Vec<String>>>,
    }

    #[test]
    fn its_location_has_no_secrets() {
        for (url, location) in [
            (
                "mysql+pymysql://u:hunter2@db:3307/cinder?charset=utf8",
                "cinder on db:3307",
            ),
            (
                "mysql://u:hunter2@[::1]:3306/cinder",
                "cinder on [::1]:3306",
            ),
            ("mysql://u:hunter2@db/", "no database on db"),
            (
                "mysql://u:hunter2@/c?unix_socket=/run/my.sock",
                "c on /run/my.sock",
            ),
            (
                "postgresql://u:hunter2@/c?host=/run/postgresql",
                "c on /run/postgresql",
            ),
            (
                "sqlite:////var/lib/cinder/cinder.sqlite?timeout=9",
                "/var/lib/cinder/cinder.sqlite",
            ),
            ("sqlite://", "no file"),
        ] {
            assert_eq!(parse(url, "").unwrap().location(), location);
        }
    }

    #[test]
    fn reads_what_sqlalchemy_reads() {
        let cases = include_str!("../../tests/fixtures/oslo_config/database_url.json");
        let cases: Vec<Case> = serde_json::from_str(cases).unwrap();
        for case in cases {
            let parsed = match parse(&case.url, &case.parameters) {
                Ok(parsed) => parsed,
                Err(DatabaseUrlError::NotEncoded) => {
                    let host = case.host.unwrap();
                    assert!(host.contains('@'), "no host's name: {host}");
                    continue;
                }
                Err(error) => {
                    assert!(case.error, "{}: {error}", case.url);
                    continue;
                }
            };
            assert!(!case.error, "{}", case.url);
            assert_eq!(parsed.user, case.username, "{}", case.url);
            let password = parsed
                .password
                .as_ref()
                .map(|p| p.expose_secret().to_owned());
            assert_eq!(password, case.password, "{}", case.url);
            assert_eq!(parsed.host, case.host, "{}", case.url);
            assert_eq!(parsed.port, case.port, "{}", case.url);
            assert_eq!(parsed.database, case.database, "{}", case.url);

            let query = case.query.unwrap();
            let value = |name: &str| query.get(name).and_then(|v| v.last()).cloned();
            assert_eq!(parsed.charset, value("charset"), "{}", case.url);
            let socket = parsed.unix_socket.map(|p| p.display().to_string());
            assert_eq!(socket, value("unix_socket"), "{}", case.url);
            let seconds = parsed.connect_timeout.map(|t| t.as_secs().to_string());
            assert_eq!(seconds, value("connect_timeout"), "{}", case.url);
            assert_eq!(
                parsed.unknown.contains(&"a".to_owned()),
                query.contains_key("a")
            );
        }
    }

    fn mode(query: &str) -> Result<TlsMode, DatabaseUrlError> {
        let url = format!("mysql+pymysql://u:p@h/db{query}");
        parse(&url, "").map(|url| url.tls.mode)
    }

    #[test]
    fn a_ca_is_never_ignored() {
        assert_eq!(mode("?ssl_ca=/ca"), Ok(TlsMode::VerifyIdentity));
        let with_parameters = parse("mysql://u:p@h/db", "ssl_ca=/ca").unwrap();
        assert_eq!(with_parameters.tls.mode, TlsMode::VerifyIdentity);
        assert_eq!(with_parameters.tls.ca, Some(PathBuf::from("/ca")));
    }

    #[test]
    fn encryption_in_unknown_words_is_refused() {
        for query in [
            "?ssl_capath=/d",
            "?ssl=true",
            "?ssl-ca=/ca",
            "?ssl_cipher=x",
        ] {
            let error = mode(query).unwrap_err();
            assert!(matches!(error, DatabaseUrlError::Tls(_)), "{query}");
        }
    }

    #[test]
    fn a_postgresql_host_in_the_query_is_a_host_or_the_folder_of_a_socket() {
        let parse = |rest: &str| parse(&format!("postgresql+psycopg2://u:p@{rest}"), "");
        let place = |rest: &str| {
            let url = parse(rest).unwrap();
            (url.host, url.port, url.unix_socket)
        };
        let text = |text: &str| Some(text.to_owned());
        let socket = Some(PathBuf::from("/run/postgresql"));
        assert_eq!(place("/c?host=/run/postgresql"), (None, None, socket));
        assert_eq!(
            place("/c?host=db&port=5433"),
            (text("db"), Some(5433), None)
        );
        assert_eq!(place("a:1/c?host=db"), (text("db"), Some(1), None));
        assert_eq!(place("a/c?host=db:2"), (text("db"), Some(2), None));
        for several in ["/c?host=a,b", "/c?host=a:1&host=b:2"] {
            let error = parse(several).unwrap_err();
            assert_eq!(error, DatabaseUrlError::SeveralHosts);
        }
    }

    #[test]
    fn a_sqlite_url_names_a_file() {
        let url = parse("sqlite:////var/lib/cinder.sqlite?timeout=2.5", "").unwrap();
        assert_eq!(url.database.as_deref(), Some("/var/lib/cinder.sqlite"));
        assert_eq!(url.lock_timeout, Some(Duration::from_millis(2500)));
        let url = parse("sqlite:///cinder.sqlite", "").unwrap();
        assert_eq!(url.database.as_deref(), Some("cinder.sqlite"));
        assert_eq!(parse("sqlite://", "").unwrap().database, None);
    }

    #[test]
    fn names_without_effect_are_told() {
        let url = parse("mysql://u:p@h/db?local_infile=1&charset=utf8", "").unwrap();
        assert_eq!(url.unknown, ["local_infile"]);
        let unknown = |dialect: &str| {
            let query =
                "application_name=a&charset=c&connect_timeout=1&read_timeout=1&unix_socket=/s";
            let url = format!("{dialect}://u:p@h/db?{query}");
            parse(&url, "").unwrap().unknown
        };
        assert_eq!(unknown("mysql"), ["application_name", "read_timeout"]);
        assert_eq!(
            unknown("postgresql"),
            ["charset", "read_timeout", "unix_socket"]
        );
        assert_eq!(unknown("sqlite").len(), 5);
    }

    #[test]
    fn unusable_urls_are_refused() {
        let error = |url| parse(url, "").unwrap_err();
        assert_eq!(
            error("oracle://u:p@h/d"),
            DatabaseUrlError::UnsupportedDialect
        );
        assert_eq!(
            error("mysql://u:p@h/d?connect_timeout=soon"),
            DatabaseUrlError::Seconds("connect_timeout")
        );
        assert_eq!(error("mysql://u:p@h:99999/d"), DatabaseUrlError::Port);
    }

    #[test]
    fn no_password_is_shown() {
        let url = parse("mysql://u:hunter2@h/db", "").unwrap();
        assert!(!format!("{url:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn never_panics(url in any::<String>(), parameters in any::<String>()) {
            let _ = parse(&url, &parameters);
        }

        #[test]
        fn never_panics_on_what_looks_like_a_url(rest in "([:/@?&=%\\[\\]a1]|é){0,40}") {
            let _ = parse(&format!("mysql://{rest}"), "");
        }
    }
}
