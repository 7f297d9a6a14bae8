//! How a volume is reached: cinder-volume is asked for the connection, and what it names is opened.
//!
//! Volumes in Ceph are opened in process, with the volumes' own cephx user. Its keyring is read
//! from where Nova and os-brick have it and never written anywhere.

mod connector;
mod error;
mod keyring;
mod links;

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use api_compat::ids::VolumeId;
use api_compat::messaging::RequestContext;
use api_compat::objects::{ObjectHistory, Volume};
use api_compat::rpc::volume::VolumeApi;
use api_compat::rpc::{AccessMode, ConnectionInfo, Outgoing};
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
    /// Backends whose volumes were found to be in Ceph.
    in_ceph: Mutex<HashSet<String>>,
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
            in_ceph: Mutex::default(),
        }
    }

    /// Whether a volume of the same backend was attached before and lay in Ceph.
    pub fn is_in_ceph(&self, volume: &Volume) -> bool {
        volume
            .service_topic_queue()
            .is_some_and(|backend| self.known().contains(backend))
    }

    fn known(&self) -> MutexGuard<'_, HashSet<String>> {
        // A set stays whole when its holder panics: inserting is a single step.
        self.in_ceph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches a volume for writing (its snapshots, or its data).
    ///
    /// # Errors
    /// [`Error`] when cinder-volume refuses or does not answer, when the volume is not in Ceph, and
    /// when its pool cannot be opened. The connection is given back then.
    pub async fn attach(
        &self,
        context: &RequestContext,
        volume: &Volume,
        history: ObjectHistory,
    ) -> Result<Attached, Error> {
        let queue = volume
            .service_topic_queue()
            .ok_or(Error::NoHost(volume.id))?;
        let api = VolumeApi::new(queue, history);
        let request = api.initialize_connection(volume, self.connector.clone());
        let answer = self.amqp.call(request, context).await?;
        match self.open(answer).await {
            Ok((pool, image)) => {
                self.known().insert(queue.to_owned());
                Ok(Attached {
                    pool,
                    image,
                    id: volume.id,
                    api,
                })
            }
            Err(error) => {
                if let Err(error) = self.disconnect(context, &api, volume.id).await {
                    debug!(volume = %volume.id, %error, "Cannot give the connection back");
                }
                Err(error)
            }
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
        let steps: [Outgoing; 2] = [
            api.terminate_connection(id, self.connector.clone(), true),
            api.remove_export(id),
        ];
        for step in steps {
            self.amqp.call(step, context).await?;
        }
        Ok(())
    }
}
