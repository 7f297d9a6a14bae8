//! Why a volume could not be reached.

use std::path::PathBuf;

use api_compat::ids::VolumeId;
use api_compat::rpc::ConnectionError;

use crate::{amqp, rbd};

/// Why a volume could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cinder-volume is in charge of it.
    #[error("Volume {0} has no host")]
    NoHost(VolumeId),
    /// cinder-volume refused, or did not answer.
    #[error(transparent)]
    Call(#[from] amqp::CallError),
    /// cinder-volume's answer cannot be used.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The connection allows reading only.
    #[error("The volume was attached read-only")]
    ReadOnly,
    /// The key of the volumes' user is not there.
    #[error("Keyring path {path} is not readable: {reason}")]
    Keyring {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system or the file says.
        reason: String,
    },
    /// The volume's cluster or pool cannot be opened.
    #[error(transparent)]
    Rbd(#[from] rbd::Error),
}
