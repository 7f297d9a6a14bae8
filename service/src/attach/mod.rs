//! How a volume is reached: cinder-volume is asked for the connection, and what it names is opened.
//!
//! Volumes in Ceph are opened in process, with the volumes' own cephx user. Its keyring is read
//! from where Nova and os-brick have it and never written anywhere. All others are attached to this
//! host by os-brick and opened as block device or file.

mod connector;
mod device;
mod error;
mod keyring;
mod links;
mod os_brick;
mod places;
mod plug;

use std::sync::{Arc, Mutex, PoisonError};

use api_compat::ids::{SnapshotId, VolumeId};
use api_compat::messaging::RequestContext;
use api_compat::objects::{ObjectHistory, Volume};
use api_compat::rpc::volume::VolumeApi;
use api_compat::rpc::{ConnectionError, ConnectionInfo, Outgoing};
use api_compat::state::VolumeStatus;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

pub use error::Error;
pub use os_brick::{BrickError, OsBrick};

use crate::amqp::{Amqp, CallError};
use crate::rbd::Pool;
use crate::transfer::{Access, Device};
use links::Links;
use places::Places;
use plug::Plugged;

/// What cinder-volume raises where a driver misses something in what it was told of this host.
const ASKING_FOR_MORE: [&str; 2] = ["InvalidInput", "VolumeBackendAPIException"];

/// Attaches volumes on behalf of this host.
pub struct Attacher {
    amqp: Amqp,
    os_brick: OsBrick,
    /// What os-brick says of this host, once it was asked.
    host: Mutex<Option<Arc<Host>>>,
    /// Held by whoever asks it.
    asking: tokio::sync::Mutex<()>,
    links: Links,
    places: Places,
}

/// What cinder-volume is told of this host.
struct Host {
    connector: Value,
    /// Why os-brick did not say it.
    unknown: Option<BrickError>,
}

/// What is to be attached.
pub struct Wanted<'a> {
    /// The volume, or that of the snapshot.
    pub volume: &'a Volume,
    /// The snapshot to attach instead of the volume.
    pub snapshot: Option<SnapshotId>,
    /// What for. An image in Ceph is always opened for writing: a backup leaves a snapshot.
    pub access: Access,
    /// Whether the driver's files may be used as they are, if that is known
    /// (`secure_file_operations`).
    pub secure: Option<bool>,
}

/// Where the bytes of an attached volume are.
pub enum Medium {
    /// An image in Ceph.
    Image {
        /// The pool that holds it.
        pool: Pool,
        /// Its name.
        image: String,
    },
    /// A block device or file.
    Device(Device),
}

/// A volume that is attached, until [`Attacher::detach`].
pub struct Attached {
    /// Where its bytes are.
    pub medium: Medium,
    connection: Connection,
    device: Option<Plugged>,
}

/// A connection that cinder-volume keeps for this host.
struct Connection {
    api: VolumeApi,
    id: Id,
    host: Arc<Host>,
}

#[derive(Clone, Copy)]
enum Id {
    Volume(VolumeId),
    Snapshot(SnapshotId),
}

impl Connection {
    fn terminate(&self) -> Outgoing {
        let connector = self.host.connector.clone();
        match self.id {
            Id::Volume(id) => self.api.terminate_connection(id, connector, true),
            Id::Snapshot(id) => self.api.terminate_connection_snapshot(id, connector, true),
        }
    }

    fn remove_export(&self) -> Outgoing {
        match self.id {
            Id::Volume(id) => self.api.remove_export(id),
            Id::Snapshot(id) => self.api.remove_export_snapshot(id),
        }
    }
}

impl Attacher {
    /// An attacher for this host.
    pub fn new(amqp: Amqp, os_brick: OsBrick) -> Self {
        Self {
            amqp,
            os_brick,
            host: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            links: Links::default(),
            places: Places::default(),
        }
    }

    /// Attaches a volume or a snapshot.
    ///
    /// # Errors
    /// [`Error`] when cinder-volume refuses or does not answer, when the volume cannot be attached
    /// or opened, and when `cancel` ends it. The connection is given back then, except that of a
    /// volume that somebody uses: it may be the same one.
    pub async fn attach(
        &self,
        context: &RequestContext,
        wanted: Wanted<'_>,
        history: ObjectHistory,
        cancel: &CancellationToken,
    ) -> Result<Attached, Error> {
        let volume = wanted.volume;
        let connection = Connection {
            api: Self::api(volume, history)?,
            id: wanted.snapshot.map_or(Id::Volume(volume.id), Id::Snapshot),
            host: self.host().await,
        };
        let reached = async {
            let answer = self.initialize(context, &connection, volume).await?;
            let info = ConnectionInfo::parse(answer.clone())?;
            if info.driver_volume_type == "rbd" {
                // What was read of a snapshot's says nothing of its volume.
                let volume = wanted.snapshot.is_none().then_some(volume);
                let (pool, image) = self.open(&info, volume).await?;
                return Ok((Medium::Image { pool, image }, None));
            }
            self.usable(&connection.host, &info)?;
            let plugged = self.plug(context, &connection, &wanted, answer, cancel);
            let (device, plugged) = plugged.await?;
            Ok((Medium::Device(device), Some(plugged)))
        };
        match reached.await {
            Ok((medium, device)) => Ok(Attached {
                medium,
                connection,
                device,
            }),
            Err(error) => {
                // Also of a call that failed: cinder-volume may have made the connection all the
                // same.
                if !may_be_shared(
                    connection.id,
                    wanted.access,
                    volume.previous_status.as_ref(),
                ) {
                    self.give_back(context, &connection).await;
                }
                Err(error)
            }
        }
    }

    /// Where a volume lies that is nobody's of this service and may be in use. Nothing is given
    /// back: a volume in Ceph has no export, and what another one has may be its user's. One that
    /// is not in Ceph and not in use is given back.
    ///
    /// # Errors
    /// As [`Attacher::attach`], and when the volume is not in Ceph.
    pub async fn locate(
        &self,
        context: &RequestContext,
        volume: &Volume,
        history: ObjectHistory,
    ) -> Result<(Pool, String), Error> {
        // Whoever deletes many backups would ask cinder-volume for each of them.
        if let Some(known) = self.places.find(volume)
            && let Ok(pool) = self.links.pool(known.clone()).await
        {
            return Ok((pool, known.image));
        }
        let connection = Connection {
            api: Self::api(volume, history)?,
            id: Id::Volume(volume.id),
            host: self.host().await,
        };
        let answer = self.initialize(context, &connection, volume).await?;
        let located = self
            .open(&ConnectionInfo::parse(answer)?, Some(volume))
            .await;
        if let Err(Error::Connection(ConnectionError::NotRbd(_))) = &located
            && volume.status == Some(VolumeStatus::Available)
        {
            self.give_back(context, &connection).await;
        }
        located
    }

    fn api(volume: &Volume, history: ObjectHistory) -> Result<VolumeApi, Error> {
        let queue = volume
            .service_topic_queue()
            .ok_or(Error::NoHost(volume.id))?;
        Ok(VolumeApi::new(queue, history))
    }

    /// Has os-brick asked about this host before the first volume needs it: that takes a second.
    pub async fn look_around(&self) {
        self.host().await;
    }

    /// What cinder-volume is told of this host. os-brick is asked once; without it volumes in Ceph are
    /// reached all the same.
    async fn host(&self) -> Arc<Host> {
        if let Some(host) = &*self.known_host() {
            return Arc::clone(host);
        }
        let _asking = self.asking.lock().await;
        if let Some(host) = &*self.known_host() {
            return Arc::clone(host);
        }
        let host = Arc::new(match self.os_brick.connector_properties().await {
            Ok(connector) => Host {
                connector,
                unknown: None,
            },
            Err(reason) => {
                info!(%reason, "Only volumes in Ceph can be attached");
                Host {
                    connector: connector::properties(&self.os_brick.my_ip),
                    unknown: Some(reason),
                }
            }
        });
        *self.known_host() = Some(Arc::clone(&host));
        host
    }

    fn known_host(&self) -> std::sync::MutexGuard<'_, Option<Arc<Host>>> {
        // Replacing is a single step.
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has os-brick asked again at the next volume: what it said may not be true any more.
    fn forget_host(&self) {
        *self.known_host() = None;
    }

    /// Whether this host can attach what is not in Ceph. Where it cannot, the next volume has
    /// os-brick looked for again.
    fn usable(&self, host: &Host, info: &ConnectionInfo) -> Result<(), Error> {
        let Some(reason) = &host.unknown else {
            return Ok(());
        };
        self.forget_host();
        Err(Error::NoOsBrick {
            protocol: info.driver_volume_type.chars().take(64).collect(),
            reason: reason.clone(),
        })
    }

    async fn initialize(
        &self,
        context: &RequestContext,
        connection: &Connection,
        volume: &Volume,
    ) -> Result<Value, Error> {
        let (api, connector) = (&connection.api, connection.host.connector.clone());
        let request = match connection.id {
            Id::Volume(_) => api.initialize_connection(volume, connector),
            Id::Snapshot(id) => api.initialize_connection_snapshot(id, connector),
        };
        let answer = self.amqp.call(request, context).await;
        answer.map_err(|refusal| {
            let asks_for_more = matches!(&refusal, CallError::Remote(failure)
                if ASKING_FOR_MORE.contains(&failure.class.as_str()));
            if !asks_for_more {
                return Error::Call(refusal);
            }
            self.forget_host();
            match &connection.host.unknown {
                Some(reason) => Error::Unknown {
                    refusal: Box::new(refusal),
                    reason: reason.clone(),
                },
                None => Error::Call(refusal),
            }
        })
    }

    async fn give_back(&self, context: &RequestContext, connection: &Connection) {
        if let Err(error) = self.disconnect(context, connection).await {
            debug!(volume = %connection.id, %error, "Cannot give the connection back");
        }
    }

    /// Opens the pool of an image, and remembers whose that is.
    async fn open(
        &self,
        info: &ConnectionInfo,
        volume: Option<&Volume>,
    ) -> Result<(Pool, String), Error> {
        let connection = info.rbd()?;
        let pool = self.links.pool(connection.clone()).await?;
        let image = connection.image.clone();
        if let Some(volume) = volume {
            self.places.remember(volume, connection);
        }
        Ok((pool, image))
    }

    /// Gives a volume back, as far as that is possible.
    ///
    /// # Errors
    /// The first step that failed.
    pub async fn detach(&self, context: &RequestContext, attached: Attached) -> Result<(), Error> {
        if let Medium::Device(device) = attached.medium {
            device.close().await;
        }
        let unplugged = match attached.device {
            Some(plugged) => {
                // Of what was only read nothing can be lost.
                let ignore_errors = plugged.access == Access::Read;
                self.unplug(plugged, ignore_errors).await
            }
            None => Ok(()),
        };
        let disconnected = self.disconnect(context, &attached.connection).await;
        unplugged?;
        disconnected
    }

    async fn disconnect(
        &self,
        context: &RequestContext,
        connection: &Connection,
    ) -> Result<(), Error> {
        let terminated = self.amqp.call(connection.terminate(), context).await;
        // Whatever became of the connection, nothing needs the export any more.
        self.amqp.call(connection.remove_export(), context).await?;
        terminated?;
        Ok(())
    }
}

/// Whether a connection may be the one by which the volume is used on this very host: cinder-volume
/// keeps one for a volume and a host. What a backup is restored to nobody uses; its `previous_status`
/// is that of some earlier operation.
fn may_be_shared(id: Id, access: Access, previous: Option<&VolumeStatus>) -> bool {
    let is_volume = matches!(id, Id::Volume(_));
    is_volume && access == Access::Read && previous == Some(&VolumeStatus::InUse)
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Volume(id) => id.fmt(f),
            Self::Snapshot(id) => id.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_volume_that_somebody_uses_keeps_its_connection() {
        let id = "5e1b1c8e-3f64-4a1c-8f2d-0d8e6f0c7b11";
        let volume = Id::Volume(id.parse().expect("an id"));
        let snapshot = Id::Snapshot(id.parse().expect("an id"));
        let (used, free) = (Some(&VolumeStatus::InUse), Some(&VolumeStatus::Available));
        assert!(may_be_shared(volume, Access::Read, used));
        assert!(!may_be_shared(volume, Access::Read, free));
        assert!(!may_be_shared(volume, Access::Read, None));
        // A snapshot that was taken to back it up, and a volume that was in use when it was last backed up.
        assert!(!may_be_shared(snapshot, Access::Read, used));
        assert!(!may_be_shared(volume, Access::Write, used));
    }
}
