//! How a database connection is encrypted, out of the words of PyMySQL and libpq.

use std::path::PathBuf;

/// How far encryption goes, each further than the one before. The words are those of MySQL's
/// `--ssl-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Clear text.
    Disabled,
    /// Encrypted if the server offers it; not verified.
    Preferred,
    /// Encrypted; not verified.
    Required,
    /// Encrypted; the certificate is signed by the CA.
    VerifyCa,
    /// Encrypted; the certificate is signed by the CA and names the host.
    VerifyIdentity,
}

/// Encryption of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// How far it goes.
    pub mode: TlsMode,
    /// Certificates that the server's must be signed by; the system's if `None`.
    pub ca: Option<PathBuf>,
    /// The client's certificate.
    pub certificate: Option<PathBuf>,
    /// The client's key.
    pub key: Option<PathBuf>,
}

/// A request for encryption that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// Encryption is forbidden, and certificates are given.
    #[error("TLS is turned off, and the query names certificates")]
    Contradiction,
    /// A value that is neither true nor false.
    #[error("{0} in the query is neither true nor false")]
    NotABoolean(&'static str),
    /// The system's certificates for less than the whole verification.
    #[error("sslrootcert=system goes with sslmode=verify-full only")]
    SystemCa,
    /// A mode that the driver does not know.
    #[error("{0} is not one that the driver knows")]
    UnknownMode(&'static str),
    /// A parameter that would have to be honoured and is not known here.
    #[error("{0} in the query is not supported")]
    Unsupported(String),
}

impl Tls {
    /// No encryption at all: there is no network in between.
    pub(super) fn none() -> Self {
        Self {
            mode: TlsMode::Disabled,
            ca: None,
            certificate: None,
            key: None,
        }
    }

    /// As PyMySQL behind SQLAlchemy: with a CA, certificate and host name are verified unless
    /// `ssl_check_hostname=false`; without any of these words TLS is used if the server offers it.
    /// `ssl_mode` is mysqlclient's.
    pub(super) fn of_pymysql(
        mut take: impl FnMut(&str) -> Option<String>,
    ) -> Result<Self, TlsError> {
        let mut boolean = |name: &'static str| take(name).map(|v| truth(name, &v)).transpose();
        let disabled = boolean("ssl_disabled")?.unwrap_or(false);
        let verify_chain = boolean("ssl_verify_cert")?;
        let verify_name = boolean("ssl_verify_identity")?.or(boolean("ssl_check_hostname")?);
        let asked = take("ssl_mode").map(|mode| mysql_mode(&mode)).transpose()?;
        let off = disabled || asked == Some(TlsMode::Disabled);
        let ca = take("ssl_ca").map(PathBuf::from);
        let certificate = take("ssl_cert").map(PathBuf::from);
        let key = take("ssl_key").map(PathBuf::from);

        let files = ca.is_some() || certificate.is_some() || key.is_some();
        if off && files {
            return Err(TlsError::Contradiction);
        }
        let wanted = files || verify_chain.is_some() || verify_name.is_some();
        // Who names a CA wants the server verified, and a name in a certificate that nobody
        // signed proves nothing.
        let chain = verify_name == Some(true) || verify_chain.unwrap_or(ca.is_some());
        let name = verify_name.unwrap_or(ca.is_some() && asked != Some(TlsMode::VerifyCa));
        let mode = match (chain, name) {
            _ if off => TlsMode::Disabled,
            (true, true) => TlsMode::VerifyIdentity,
            (true, false) => TlsMode::VerifyCa,
            (false, _) if wanted => TlsMode::Required,
            (false, _) => TlsMode::Preferred,
        };
        Ok(Self {
            mode: asked.map_or(mode, |asked| asked.max(mode)),
            ca,
            certificate,
            key,
        })
    }

    /// As libpq, except that a CA is never without effect. What the query does not name comes from the
    /// environment; files do only where TLS is not turned off.
    pub(super) fn of_libpq(
        mut take: impl FnMut(&str) -> Option<String>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, TlsError> {
        let (from, mode) = match take("sslmode") {
            None => ("PGSSLMODE", environment("PGSSLMODE")),
            asked => ("sslmode", asked),
        };
        let off = mode.as_deref() == Some("disable");
        let mut file = |word: &str, variable: &str| {
            take(word).or_else(|| environment(variable).filter(|_| !off))
        };
        let (ca, system) = match file("sslrootcert", "PGSSLROOTCERT") {
            Some(word) if word == "system" => (None, true),
            file => (file.map(PathBuf::from), false),
        };
        let mode = match (mode.as_deref(), ca.is_some()) {
            (None | Some("verify-full"), _) if system => TlsMode::VerifyIdentity,
            _ if system => return Err(TlsError::SystemCa),
            (Some("disable"), true) => return Err(TlsError::Contradiction),
            (Some("disable"), false) => TlsMode::Disabled,
            (None | Some("allow" | "prefer"), false) => TlsMode::Preferred,
            (Some("require"), false) => TlsMode::Required,
            (None | Some("allow" | "prefer" | "require" | "verify-ca"), _) => TlsMode::VerifyCa,
            (Some("verify-full"), _) => TlsMode::VerifyIdentity,
            (Some(_), _) => return Err(TlsError::UnknownMode(from)),
        };
        Ok(Self {
            mode,
            ca,
            certificate: file("sslcert", "PGSSLCERT").map(PathBuf::from),
            key: file("sslkey", "PGSSLKEY").map(PathBuf::from),
        })
    }
}

/// A value of MySQL's `--ssl-mode`.
fn mysql_mode(text: &str) -> Result<TlsMode, TlsError> {
    match text.to_uppercase().as_str() {
        "DISABLED" => Ok(TlsMode::Disabled),
        "PREFERRED" => Ok(TlsMode::Preferred),
        "REQUIRED" => Ok(TlsMode::Required),
        "VERIFY_CA" => Ok(TlsMode::VerifyCa),
        "VERIFY_IDENTITY" => Ok(TlsMode::VerifyIdentity),
        _ => Err(TlsError::UnknownMode("ssl_mode")),
    }
}

/// SQLAlchemy's `asbool`.
fn truth(name: &'static str, text: &str) -> Result<bool, TlsError> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "t" | "1" => Ok(true),
        "false" | "no" | "off" | "n" | "f" | "0" => Ok(false),
        _ => Err(TlsError::NotABoolean(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::url::query_pairs;

    type Take<'a> = &'a mut dyn FnMut(&str) -> Option<String>;

    fn mode(
        of: impl Fn(Take<'_>) -> Result<Tls, TlsError>,
        query: &str,
    ) -> Result<TlsMode, TlsError> {
        let pairs: Vec<_> = query_pairs(query).collect();
        let mut take = |name: &str| {
            let pair = pairs.iter().find(|(key, _)| key == name);
            pair.map(|(_, value)| value.clone())
        };
        of(&mut take).map(|tls| tls.mode)
    }

    #[test]
    fn of_pymysql() {
        let mode = |query| mode(|take| Tls::of_pymysql(take), query);
        assert_eq!(mode(""), Ok(TlsMode::Preferred));
        assert_eq!(mode("ssl_ca=/c"), Ok(TlsMode::VerifyIdentity));
        assert_eq!(
            mode("ssl_ca=/c&ssl_check_hostname=false"),
            Ok(TlsMode::VerifyCa)
        );
        assert_eq!(
            mode("ssl_ca=/c&ssl_verify_identity=true"),
            Ok(TlsMode::VerifyIdentity)
        );
        assert_eq!(
            mode("ssl_ca=/c&ssl_verify_cert=true"),
            Ok(TlsMode::VerifyIdentity)
        );
        assert_eq!(
            mode("ssl_ca=/c&ssl_verify_cert=false"),
            Ok(TlsMode::Required)
        );
        assert_eq!(mode("ssl_cert=/c&ssl_key=/k"), Ok(TlsMode::Required));
        assert_eq!(mode("ssl_verify_cert=true"), Ok(TlsMode::VerifyCa));
        assert_eq!(
            mode("ssl_verify_identity=true"),
            Ok(TlsMode::VerifyIdentity)
        );
        assert_eq!(
            mode("ssl_verify_identity=true&ssl_verify_cert=false"),
            Ok(TlsMode::VerifyIdentity)
        );
        assert_eq!(mode("ssl_verify_cert=false"), Ok(TlsMode::Required));
        assert_eq!(mode("ssl_check_hostname=false"), Ok(TlsMode::Required));
        assert_eq!(mode("ssl_disabled=true"), Ok(TlsMode::Disabled));
        assert_eq!(mode("ssl_disabled=false"), Ok(TlsMode::Preferred));
        assert_eq!(
            mode("ssl_disabled=1&ssl_ca=/c"),
            Err(TlsError::Contradiction)
        );
        assert_eq!(
            mode("ssl_verify_cert=maybe"),
            Err(TlsError::NotABoolean("ssl_verify_cert"))
        );
        assert_eq!(mode("ssl_mode=disabled"), Ok(TlsMode::Disabled));
        assert_eq!(mode("ssl_mode=PREFERRED"), Ok(TlsMode::Preferred));
        assert_eq!(mode("ssl_mode=REQUIRED"), Ok(TlsMode::Required));
        assert_eq!(
            mode("ssl_mode=REQUIRED&ssl_ca=/c"),
            Ok(TlsMode::VerifyIdentity)
        );
        assert_eq!(mode("ssl_mode=VERIFY_CA&ssl_ca=/c"), Ok(TlsMode::VerifyCa));
        assert_eq!(
            mode("ssl_mode=VERIFY_IDENTITY"),
            Ok(TlsMode::VerifyIdentity)
        );
        assert_eq!(
            mode("ssl_mode=DISABLED&ssl_ca=/c"),
            Err(TlsError::Contradiction)
        );
        assert_eq!(
            mode("ssl_mode=maybe"),
            Err(TlsError::UnknownMode("ssl_mode"))
        );
    }

    #[test]
    fn of_libpq() {
        let mode = |query| mode(|take| Tls::of_libpq(take, |_| None), query);
        assert_eq!(mode(""), Ok(TlsMode::Preferred));
        assert_eq!(mode("sslmode=disable"), Ok(TlsMode::Disabled));
        assert_eq!(mode("sslmode=require"), Ok(TlsMode::Required));
        assert_eq!(
            mode("sslmode=require&sslrootcert=/c"),
            Ok(TlsMode::VerifyCa)
        );
        assert_eq!(mode("sslrootcert=/c"), Ok(TlsMode::VerifyCa));
        assert_eq!(mode("sslmode=verify-ca"), Ok(TlsMode::VerifyCa));
        assert_eq!(mode("sslmode=verify-full"), Ok(TlsMode::VerifyIdentity));
        assert_eq!(
            mode("sslmode=disable&sslrootcert=/c"),
            Err(TlsError::Contradiction)
        );
        assert_eq!(mode("sslmode=maybe"), Err(TlsError::UnknownMode("sslmode")));
        assert_eq!(mode("sslrootcert=system"), Ok(TlsMode::VerifyIdentity));
        assert_eq!(
            mode("sslrootcert=system&sslmode=require"),
            Err(TlsError::SystemCa)
        );
    }
    #[test]
    fn what_the_url_does_not_name_comes_from_libpqs_environment() {
        let mode = |variables: &[(&str, &str)], query: &str| {
            let environment = |name: &str| {
                let variable = variables.iter().find(|(key, _)| *key == name);
                variable.map(|(_, value)| (*value).to_owned())
            };
            mode(|take| Tls::of_libpq(take, environment), query)
        };
        let full = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", "/c")];
        assert_eq!(mode(&full, ""), Ok(TlsMode::VerifyIdentity));
        assert_eq!(mode(&full[1..], ""), Ok(TlsMode::VerifyCa));
        assert_eq!(mode(&full, "sslmode=verify-ca"), Ok(TlsMode::VerifyCa));
        assert_eq!(mode(&full, "sslmode=disable"), Ok(TlsMode::Disabled));
        let off = [("PGSSLMODE", "disable"), ("PGSSLROOTCERT", "/c")];
        assert_eq!(mode(&off, ""), Ok(TlsMode::Disabled));
        assert_eq!(mode(&off, "sslrootcert=/c"), Err(TlsError::Contradiction));
        let odd = mode(&[("PGSSLMODE", "verify_full")], "");
        assert_eq!(odd, Err(TlsError::UnknownMode("PGSSLMODE")));
    }
}
