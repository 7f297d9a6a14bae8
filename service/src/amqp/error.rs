//! What can go wrong with the broker and with those behind it.

use std::path::PathBuf;

use api_compat::messaging::Failure;
use api_compat::messaging::queue::OptionsError;

/// Why a call or cast came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The other side raised an exception. The text leaves out its traceback.
    #[error("{0}")]
    Remote(Failure),
    /// No answer came in time.
    #[error("Timed out after {seconds} s waiting for an answer to {method}")]
    Timeout {
        /// The method that was called.
        method: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// The broker is away. The reason names hosts, and tenants read this text in `fail_reason`: it
    /// is for `Debug` only.
    #[error("The message broker cannot be reached")]
    Unreachable(String),
    /// There is no such queue (any more).
    #[error("The message could not be routed: {0}")]
    Unroutable(String),
}

/// Why messaging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Options that exclude each other.
    #[error("[oslo_messaging_rabbit] {0}")]
    Options(#[from] OptionsError),
    /// A file with certificates or a key that is of no use.
    #[error("[oslo_messaging_rabbit] {option}: {}: {reason}", path.display())]
    File {
        /// The option that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS cannot be used at all.
    #[error("cannot set up TLS: {0}")]
    Tls(openssl::error::ErrorStack),
}
