//! The files of certificates that a URL names, in the way in which the driver can take them: it knows one
//! authority besides the system's, and keys in PKCS #8.

use std::path::Path;

use api_compat::config::tls::Tls;
use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::{X509, X509StoreContext};
use tracing::warn;

use super::{Error, Result};

/// How many authorities are tried: a server counts handshakes that fail, and blocks whom it has counted
/// too often.
const AUTHORITIES: usize = 10;

/// What begins a key that the driver takes as it is.
const PKCS8: &[u8] = b"-----BEGIN PRIVATE KEY-----";

/// An authority to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Authority {
    /// What the URL says: at most one, whose file is read for each connection.
    Named,
    /// One of several in the file: its certificate in PEM.
    OneOf(Vec<u8>),
}

/// The authorities to try, one of which the server's certificate has to lead to. The system's count with
/// each of them.
///
/// # Errors
/// `Configuration` for a file that is of no use.
pub(super) fn authorities(tls: &Tls) -> Result<Vec<Authority>> {
    let Some(path) = &tls.ca else {
        return Ok(vec![Authority::Named]);
    };
    let all = X509::stack_from_pem(&read(path)?).map_err(|error| unusable(path, &error))?;
    if all.is_empty() {
        return Err(unusable(path, &"holds no certificate"));
    }
    if all.len() == 1 {
        return Ok(vec![Authority::Named]);
    }
    let tried = worth_trying(&all, &system()?)?;
    if tried.len() > AUTHORITIES {
        warn!(
            file = %path.display(),
            "Only the first {AUTHORITIES} certificates that the system does not trust are tried for the \
             database"
        );
    }
    let pem = |certificate: &X509| Ok(Authority::OneOf(certificate.to_pem()?));
    let tried = tried.into_iter().take(AUTHORITIES).map(pem);
    tried
        .collect::<std::result::Result<_, ErrorStack>>()
        .map_err(|error| unusable(path, &error))
}

/// Those that the system does not know; the first, for what the system knows, when there are none.
fn worth_trying<'a>(all: &'a [X509], system: &X509Store) -> Result<Vec<&'a X509>> {
    let mut unknown = Vec::new();
    for certificate in all {
        if !trusts(system, certificate).map_err(broken)? {
            unknown.push(certificate);
        }
    }
    if unknown.is_empty() {
        unknown.extend(all.first());
    }
    Ok(unknown)
}

fn system() -> Result<X509Store> {
    let mut store = X509StoreBuilder::new().map_err(broken)?;
    store.set_default_paths().map_err(broken)?;
    Ok(store.build())
}

fn trusts(store: &X509Store, certificate: &X509) -> std::result::Result<bool, ErrorStack> {
    let chain = Stack::new()?;
    X509StoreContext::new()?.init(store, certificate, &chain, |context| context.verify_cert())
}

/// The client's key in PKCS #8, if its file has it in another format.
///
/// # Errors
/// `Configuration` for a file that is of no use.
pub(super) fn converted_key(tls: &Tls) -> Result<Option<Vec<u8>>> {
    let Some(path) = &tls.key else {
        return Ok(None);
    };
    let pem = read(path)?;
    if pem.starts_with(PKCS8) {
        return Ok(None);
    }
    // OpenSSL would ask at the terminal for the passphrase of a key that has one.
    let key = PKey::private_key_from_pem_callback(&pem, |_| Ok(0));
    let converted = key.and_then(|key| key.private_key_to_pem_pkcs8());
    converted
        .map(Some)
        .map_err(|error| unusable(path, &format!("holds no private key: {error}")))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| unusable(path, &error))
}

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::Configuration(format!("connection: {}: {reason}", path.display()))
}

fn broken(error: ErrorStack) -> Error {
    Error::Configuration(format!("connection: OpenSSL: {error}"))
}

#[cfg(test)]
mod tests {
    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;
    use openssl::rsa::Rsa;
    use openssl::x509::X509NameBuilder;
    use openssl::x509::extension::BasicConstraints;

    use super::*;

    fn authority(name: &str) -> X509 {
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let mut subject = X509NameBuilder::new().unwrap();
        subject.append_entry_by_text("CN", name).unwrap();
        let subject = subject.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_subject_name(&subject).unwrap();
        builder.set_issuer_name(&subject).unwrap();
        builder.set_pubkey(&key).unwrap();
        let ca = BasicConstraints::new().critical().ca().build().unwrap();
        builder.append_extension(ca).unwrap();
        let days = |days| Asn1Time::days_from_now(days).unwrap();
        builder.set_not_before(&days(0)).unwrap();
        builder.set_not_after(&days(1)).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        builder.build()
    }

    #[test]
    fn what_the_system_trusts_is_not_tried_one_by_one() {
        let all = [authority("a"), authority("b"), authority("c")];
        let trusting = |known: &[X509]| {
            let mut store = X509StoreBuilder::new().unwrap();
            for certificate in known {
                store.add_cert(certificate.clone()).unwrap();
            }
            store.build()
        };
        let tried = |known: &[X509]| worth_trying(&all, &trusting(known)).unwrap();
        assert_eq!(tried(&[]), all.iter().collect::<Vec<_>>());
        assert_eq!(tried(&[all[0].clone(), all[2].clone()]), [&all[1]]);
        assert_eq!(tried(&all), [&all[0]]);
    }
}
