//! Why a volume could not be reached.

use std::io;
use std::path::{Path, PathBuf};

use api_compat::ids::VolumeId;
use api_compat::rpc::ConnectionError;

use super::os_brick::BrickError;
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
    /// Somebody called it off.
    #[error("Attaching the volume was called off")]
    CalledOff,
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
    /// The volume is not in Ceph, and there is nothing else to reach it with.
    #[error("The volume is reached through {protocol}, which takes os-brick: {reason}")]
    NoOsBrick {
        /// How it is reached.
        protocol: String,
        /// What was found instead of os-brick.
        reason: BrickError,
    },
    /// The volume's driver asks for more than is known of this host without os-brick.
    #[error("{refusal}; {reason}")]
    Unknown {
        /// What cinder-volume says.
        refusal: Box<amqp::CallError>,
        /// What was found instead of os-brick.
        reason: BrickError,
    },
    /// os-brick could not attach or detach the volume.
    #[error(transparent)]
    Brick(#[from] BrickError),
    /// The device of an attached volume cannot be opened.
    #[error("Cannot open {path}: {reason}")]
    Open {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The device belongs to somebody else, and its owner cannot be changed.
    #[error("Cannot change the owner of {path}: {reason}")]
    Ownership {
        /// Where it is.
        path: PathBuf,
        /// What the system or the command says.
        reason: String,
    },
    /// A file holds only what changed since another one.
    #[error(
        "{0} holds only part of the volume: it rests on another file, as it does while the volume has \
         snapshots"
    )]
    Overlay(PathBuf),
    /// A file is longer than the volume for which it stands.
    #[error("{path} is longer than the volume's {size} bytes")]
    TooLong {
        /// Where it is.
        path: PathBuf,
        /// The volume's size in bytes.
        size: u64,
    },
}

impl Error {
    pub(super) fn open(path: &Path, error: &io::Error) -> Self {
        Self::Open {
            path: path.to_owned(),
            reason: error.to_string(),
        }
    }
}
