//! Volumes that are not in Ceph: attached by os-brick, then opened; and the way back.

use std::path::{Path, PathBuf};

use api_compat::messaging::RequestContext;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::device::{self, Ownership};
use super::{Attacher, BrickError, Connection, Error, Wanted};
use crate::transfer::{Access, Device};

const GIB: u64 = 1 << 30;

/// What os-brick has attached.
pub(super) struct Plugged {
    answer: Value,
    device: Value,
    ownership: Option<Ownership>,
    pub access: Access,
}

impl Attacher {
    /// Has os-brick attach what cinder-volume has made ready, and opens it. When this fails, it is
    /// not attached any more.
    pub(super) async fn plug(
        &self,
        context: &RequestContext,
        connection: &Connection,
        wanted: &Wanted<'_>,
        answer: Value,
        cancel: &CancellationToken,
    ) -> Result<(Device, Plugged), Error> {
        let text = |name: &str| answer["data"][name].as_str();
        let format = text("format").map(str::to_owned);
        let connected = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::CalledOff),
            connected = self.os_brick.connect(&answer) => connected.map_err(|error| {
                // It may have been connected to an initiator that this host had once.
                self.forget_host();
                Error::Brick(error)
            }),
        };
        let mut plugged = Plugged {
            answer,
            device: Value::Null,
            ownership: None,
            access: wanted.access,
        };
        let opened = async {
            plugged.device = connected?;
            let path = plugged.device["path"].as_str().unwrap_or_default();
            let path = PathBuf::from(path);
            let device = match device::open(&path, wanted.access).await? {
                Some(device) => device,
                None => {
                    self.own(context, connection, wanted, &path, &mut plugged)
                        .await?
                }
            };
            if wanted.access == Access::Read {
                let size = wanted.volume.size.and_then(|size| u64::try_from(size).ok());
                let size = size.unwrap_or_default() * GIB;
                device::check_format(&device, format.as_deref(), size).await?;
            }
            Ok(device)
        };
        match opened.await {
            Ok(device) => Ok((device, plugged)),
            Err(error) => {
                // Whatever of it is there: it may have been broken off in the middle.
                if let Err(error) = self.unplug(plugged, true).await {
                    warn!(volume = %connection.id, %error, "Cannot detach a volume that was not opened");
                }
                Err(error)
            }
        }
    }

    /// Opens a device that is somebody else's, as its owner for a while.
    async fn own(
        &self,
        context: &RequestContext,
        connection: &Connection,
        wanted: &Wanted<'_>,
        path: &Path,
        plugged: &mut Plugged,
    ) -> Result<Device, Error> {
        let denied = || Error::open(path, &std::io::ErrorKind::PermissionDenied.into());
        let secure = match wanted.secure {
            Some(secure) => secure,
            None => {
                let api = &connection.api;
                let request = api.secure_file_operations_enabled(wanted.volume);
                self.amqp.call(request, context).await? == Value::Bool(true)
            }
        };
        if secure {
            return Err(denied());
        }
        let helper = self.os_brick.root_helper();
        let ownership = Ownership::of(path, helper).await?;
        // It is given back whatever becomes of the change.
        plugged.ownership.insert(ownership).take().await?;
        device::open(path, wanted.access).await?.ok_or_else(denied)
    }

    /// Gives back what os-brick has attached. Nothing of it is open any more.
    pub(super) async fn unplug(
        &self,
        plugged: Plugged,
        ignore_errors: bool,
    ) -> Result<(), BrickError> {
        if let Some(ownership) = plugged.ownership {
            ownership.give_back().await;
        }
        self.os_brick
            .disconnect(&plugged.answer, &plugged.device, ignore_errors)
            .await
    }
}
