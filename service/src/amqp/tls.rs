//! TLS to a broker: whose certificates count, and who we are.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{AsyncRead, AsyncWrite};
use lapin::AsyncTcpStream;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;

use super::SetupError;

/// The files that `[oslo_messaging_rabbit]` names.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// `ssl_ca_file`: nothing else is trusted. Without it, what the system trusts.
    pub authorities: Option<PathBuf>,
    /// `ssl_cert_file`: ours, and what leads from it to an authority.
    pub own: Option<PathBuf>,
    /// `ssl_key_file`: its key. Without it, the key is in the file of the certificate.
    pub key: Option<PathBuf>,
}

/// Makes connections secure. The server's certificate and the name in it are always verified.
pub struct Tls {
    connector: SslConnector,
    /// What was wrong with the last certificate: OpenSSL's error does not tell.
    refused: Arc<Mutex<Option<String>>>,
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
        builder.set_verify_callback(SslVerifyMode::PEER, move |sound, chain| {
            if !sound {
                let reason = chain.error().error_string().to_owned();
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
            }
            sound
        });
        Ok(Self {
            connector: builder.build(),
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
            if let Some(reason) = refused.take() {
                return format!("its certificate is refused: {reason}");
            }
            let error = error.to_string();
            match error.contains("wrong version number") {
                true => format!("does this port speak TLS? {error}"),
                false => error,
            }
        })
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
