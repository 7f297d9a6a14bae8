//! How a volume is reached: cinder-volume is asked for the connection, and what it names is opened.
//!
//! Volumes in Ceph are opened in process, with the volumes' own cephx user. Its keyring is read
//! from where Nova and os-brick have it and never written anywhere.

mod connector;
mod error;
mod keyring;
mod links;

use api_compat::ids::VolumeId;
use api_compat::messaging::RequestContext;
use api_compat::objects::{ObjectHistory, Volume};
use api_compat::rpc::volume::VolumeApi;
use api_compat::rpc::{AccessMode, ConnectionInfo};
use api_compat::state::VolumeStatus;
use serde_json::Value;
use tracing::debug;

pub use error::Error;

use crate::amqp::Amqp;
use crate::rbd::Pool;
use links::Links;

/// Attaches volumes on behalf of this host.
pub struct Attacher {
    amqp: Amqp,
    connector: Value,
    links: Links,
}

/// A volume that is attached, until [`Attacher::detach`].
pub struct Attached {
    /// The pool that holds the volume's image.
    pub pool: Pool,
    /// The image's name.
    pub image: String,
    id: VolumeId,
    api: VolumeApi,
}

impl Attacher {
    /// An attacher for a host that other services know under `ip` (`my_ip`).
    pub fn new(amqp: Amqp, ip: &str) -> Self {
        Self {
            amqp,
            connector: connector::properties(ip),
            links: Links::default(),
        }
    }

    /// Attaches a volume for writing (its snapshots, or its data).
    ///
    /// # Errors
    /// [`Error`] when cinder-volume refuses or does not answer, when the volume is not in Ceph, and
    /// when its pool cannot be opened. The connection is given back then, except that of a volume
    /// that somebody uses: it may be the same one.
    pub async fn attach(
        &self,
        context: &RequestContext,
        volume: &Volume,
        history: ObjectHistory,
    ) -> Result<Attached, Error> {
        let api = Self::api(volume, history)?;
        match self.initialize(context, &api, volume).await {
            Ok((pool, image)) => Ok(Attached {
                pool,
                image,
                id: volume.id,
                api,
            }),
            Err(error) => {
                // Also of a call that failed: cinder-volume may have made the connection all the
                // same.
                if volume.previous_status != Some(VolumeStatus::InUse) {
                    self.give_back(context, &api, volume.id).await;
                }
                Err(error)
            }
        }
    }

    /// Where a volume lies that is nobody's of this service and may be in use. Nothing is given
    /// back: a volume in Ceph has no export, and what another one has may be its user's.
    ///
    /// # Errors
    /// As [`Attacher::attach`].
    pub async fn locate(
        &self,
        context: &RequestContext,
        volume: &Volume,
        history: ObjectHistory,
    ) -> Result<(Pool, String), Error> {
        let api = Self::api(volume, history)?;
        self.initialize(context, &api, volume).await
    }

    fn api(volume: &Volume, history: ObjectHistory) -> Result<VolumeApi, Error> {
        let queue = volume
            .service_topic_queue()
            .ok_or(Error::NoHost(volume.id))?;
        Ok(VolumeApi::new(queue, history))
    }

    async fn initialize(
        &self,
        context: &RequestContext,
        api: &VolumeApi,
        volume: &Volume,
    ) -> Result<(Pool, String), Error> {
        let request = api.initialize_connection(volume, self.connector.clone());
        self.open(self.amqp.call(request, context).await?).await
    }

    async fn give_back(&self, context: &RequestContext, api: &VolumeApi, id: VolumeId) {
        if let Err(error) = self.disconnect(context, api, id).await {
            debug!(volume = %id, %error, "Cannot give the connection back");
        }
    }

    async fn open(&self, answer: Value) -> Result<(Pool, String), Error> {
        let connection = ConnectionInfo::parse(answer)?.rbd()?;
        if connection.access_mode == AccessMode::ReadOnly {
            return Err(Error::ReadOnly);
        }
        let image = connection.image.clone();
        Ok((self.links.pool(connection).await?, image))
    }

    /// Gives a volume back.
    ///
    /// # Errors
    /// When cinder-volume does not confirm it.
    pub async fn detach(&self, context: &RequestContext, attached: Attached) -> Result<(), Error> {
        self.disconnect(context, &attached.api, attached.id).await
    }

    async fn disconnect(
        &self,
        context: &RequestContext,
        api: &VolumeApi,
        id: VolumeId,
    ) -> Result<(), Error> {
        let terminate = api.terminate_connection(id, self.connector.clone(), true);
        let terminated = self.amqp.call(terminate, context).await;
        // Whatever became of the connection, nothing needs the export any more.
        self.amqp.call(api.remove_export(id), context).await?;
        terminated?;
        Ok(())
    }
}
