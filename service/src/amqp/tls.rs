//! TLS to a broker: whose certificates count, and who we are.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{AsyncRead, AsyncWrite};
use lapin::AsyncTcpStream;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVerifyMode};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509VerifyResult};

use super::SetupError;

/// OpenSSL's errors of a certificate that is sound and not for this host
/// (`X509_V_ERR_HOSTNAME_MISMATCH` and `X509_V_ERR_IP_ADDRESS_MISMATCH` in `openssl/x509_vfy.h`).
const OTHER_NAMES: [i32; 2] = [62, 64];

/// The files that `[oslo_messaging_rabbit]` names, and what is asked of a broker's certificate.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// `ssl_ca_file`: nothing else is trusted. Without it, what the system trusts.
    pub authorities: Option<PathBuf>,
    /// `ssl_cert_file`: ours, and what leads from it to an authority.
    pub own: Option<PathBuf>,
    /// `ssl_key_file`: its key. Without it, the key is in the file of the certificate.
    pub key: Option<PathBuf>,
    /// Whether a certificate for another name will do: `ssl_enforce_hostname_verification` is false.
    pub any_name: bool,
}

/// Makes connections secure. The server's certificate is always verified, and so is the name in it
/// unless the operator says otherwise.
pub struct Tls {
    connector: SslConnector,
    /// Whether only the authorities of `ssl_ca_file` count.
    own_authorities: bool,
    /// What was wrong with the last certificate: OpenSSL's error does not tell.
    refused: Arc<Mutex<Option<X509VerifyResult>>>,
}

impl Tls {
    /// Reads the certificates.
    ///
    /// # Errors
    /// [`SetupError::File`] with the option whose file is of no use.
    pub fn new(files: &Certificates) -> Result<Self, SetupError> {
        let mut builder = SslConnector::builder(SslMethod::tls()).map_err(SetupError::Tls)?;
        if let Some(path) = &files.authorities {
            trust_only(&mut builder, path)?;
        }
        if let Some(path) = &files.own {
            identify(&mut builder, path, files.key.as_deref())?;
        } else if let Some(path) = &files.key {
            let reason = "is of no use without ssl_cert_file";
            return Err(unusable("ssl_key_file", path, reason));
        }
        let refused = Arc::new(Mutex::new(None));
        let last = refused.clone();
        let any_name = files.any_name;
        // Called for each certificate of the chain, and for each thing that is wrong with one.
        builder.set_verify_callback(SslVerifyMode::PEER, move |sound, chain| {
            if sound {
                return true;
            }
            let error = chain.error();
            if any_name && OTHER_NAMES.contains(&error.as_raw()) {
                chain.set_error(X509VerifyResult::OK);
                return true;
            }
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            false
        });
        Ok(Self {
            connector: builder.build(),
            own_authorities: files.authorities.is_some(),
            refused,
        })
    }

    /// Shakes hands with the host of that name.
    ///
    /// # Errors
    /// What is wrong, in words for an operator.
    pub async fn secure<S>(
        &self,
        stream: AsyncTcpStream<S>,
        host: &str,
    ) -> Result<AsyncTcpStream<S>, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let shaken = stream.into_openssl(&self.connector, host).await;
        shaken.map_err(|error| {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(error) = refused.take() {
                let reason = error.error_string();
                let advice = advice(error.as_raw(), self.own_authorities);
                return format!("its certificate is refused: {reason} ({advice})");
            }
            let error = error.to_string();
            match error.contains("wrong version number") {
                true => format!("does this port speak TLS? {error}"),
                false => error,
            }
        })
    }
}

/// What an operator can do about a certificate that is refused.
fn advice(error: i32, own_authorities: bool) -> &'static str {
    match own_authorities {
        _ if OTHER_NAMES.contains(&error) => {
            "[oslo_messaging_rabbit] ssl_enforce_hostname_verification = false accepts \
             certificates for other names"
        }
        true => "see [oslo_messaging_rabbit] ssl_ca_file",
        false => {
            "[oslo_messaging_rabbit] ssl_ca_file is not set, so that only the authorities count \
             which this system trusts: set it to the file with the certificate of the broker's"
        }
    }
}

fn trust_only(builder: &mut SslConnectorBuilder, path: &Path) -> Result<(), SetupError> {
    let refuse = |reason: ErrorStack| unusable("ssl_ca_file", path, reason);
    let certificates = X509::stack_from_pem(&read("ssl_ca_file", path)?).map_err(refuse)?;
    if certificates.is_empty() {
        return Err(unusable("ssl_ca_file", path, "holds no certificate"));
    }
    let mut store = X509StoreBuilder::new().map_err(refuse)?;
    for certificate in certificates {
        store.add_cert(certificate).map_err(refuse)?;
    }
    // In place of the store with the system's.
    builder.set_cert_store(store.build());
    Ok(())
}

fn identify(
    builder: &mut SslConnectorBuilder,
    path: &Path,
    key_path: Option<&Path>,
) -> Result<(), SetupError> {
    let refuse = |reason: ErrorStack| unusable("ssl_cert_file", path, reason);
    let chain = X509::stack_from_pem(&read("ssl_cert_file", path)?).map_err(refuse)?;
    let mut chain = chain.into_iter();
    let Some(own) = chain.next() else {
        return Err(unusable("ssl_cert_file", path, "holds no certificate"));
    };
    builder.set_certificate(&own).map_err(refuse)?;
    for next in chain {
        builder.add_extra_chain_cert(next).map_err(refuse)?;
    }
    let (option, path) = match key_path {
        Some(path) => ("ssl_key_file", path),
        None => ("ssl_cert_file", path),
    };
    let refuse = |reason: ErrorStack| {
        let reason = format!("holds no key for the certificate: {reason}");
        unusable(option, path, reason)
    };
    let key = private_key(&read(option, path)?).map_err(refuse)?;
    builder.set_private_key(&key).map_err(refuse)?;
    builder.check_private_key().map_err(refuse)
}

/// OpenSSL would ask at the terminal for the passphrase of a key that has one.
fn private_key(pem: &[u8]) -> Result<PKey<Private>, ErrorStack> {
    PKey::private_key_from_pem_callback(pem, |_| Ok(0))
}

fn read(option: &'static str, path: &Path) -> Result<Vec<u8>, SetupError> {
    std::fs::read(path).map_err(|error| unusable(option, path, error))
}

fn unusable(option: &'static str, path: &Path, reason: impl ToString) -> SetupError {
    SetupError::File {
        option,
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_told_which_option_helps() {
        for own in [true, false] {
            let said = advice(62, own);
            assert!(said.contains("ssl_enforce_hostname_verification"), "{said}");
        }
        // A chain that ends at an authority that nobody knows.
        assert_eq!(advice(20, true), "see [oslo_messaging_rabbit] ssl_ca_file");
        assert!(advice(20, false).contains("ssl_ca_file is not set"));
    }
}
