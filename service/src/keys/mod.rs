//! The keys of encrypted volumes: each volume and each backup has one of its own, with the same
//! content as that of the volume that was backed up. What they open is never looked at.

mod backend;

use api_compat::config::Config;
use api_compat::messaging::RequestContext;
use api_compat::secret::{self, Description, FIXED_KEY, SecretError};
use secrecy::{SecretSlice, SecretString};
use tracing::{info, warn};
use uuid::Uuid;

use crate::openstack::{self, Barbican, Caller, Login};

use backend::{Kind, kind};

/// Why a key could not be copied or deleted. The texts are castellan's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such key.
    #[error("Key not found, uuid: {0}")]
    NotFound(String),
    /// The key manager does not do what it is asked for.
    #[error("Key manager error: {0}")]
    KeyManager(#[from] openstack::Error),
    /// There is none.
    #[error("Key manager error: {0}")]
    None(String),
}

impl From<SecretError> for Error {
    fn from(error: SecretError) -> Self {
        Self::KeyManager(error.into())
    }
}

/// The key manager of the cloud.
pub struct KeyManager {
    backend: Backend,
    /// `fixed_key`.
    fixed: Option<SecretString>,
    /// Who this service is by itself.
    own: Option<Login>,
}

enum Backend {
    Barbican(Box<Barbican>),
    /// Cinder's ConfKeyManager, which has one key for everything.
    Fixed,
    /// None that can be used, and why.
    None(String),
}

impl KeyManager {
    /// The one that is configured. One that cannot be used is told of in the log: it matters only
    /// where a volume is encrypted.
    pub fn from_config(config: &Config) -> Self {
        let backend = &config.key_manager.backend;
        let backend = match kind(backend) {
            Kind::Fixed => Backend::Fixed,
            Kind::Barbican => match backend::barbican(config) {
                Ok(barbican) => Backend::Barbican(Box::new(barbican)),
                Err(error) => Backend::None(error),
            },
            Kind::Unknown => Backend::None(format!(
                "[key_manager] backend: {backend} is not supported by this backup service"
            )),
        };
        match &backend {
            Backend::None(reason) => {
                warn!(reason, "Encrypted volumes cannot be backed up or restored");
            }
            Backend::Fixed => {
                warn!(
                    "This key manager is insecure and is not recommended for production deployments"
                );
            }
            Backend::Barbican(_) => {}
        }
        Self {
            backend,
            fixed: config.key_manager.fixed_key.clone(),
            own: backend::user(
                config.keystone_authtoken.credentials(),
                backend::retries(config),
            ),
        }
    }

    /// Whether a key can be deleted for which no user asks.
    pub fn acts_alone(&self) -> bool {
        match &self.backend {
            Backend::Barbican(_) => self.own.is_some(),
            Backend::Fixed => true,
            Backend::None(_) => false,
        }
    }

    /// Stores a copy of a key for the user who asks; its id.
    ///
    /// # Errors
    /// `NotFound` if there is no such key.
    pub async fn copy(&self, context: &RequestContext, key: &str) -> Result<String, Error> {
        let barbican = match &self.backend {
            Backend::Barbican(barbican) => barbican,
            Backend::Fixed => return self.copy_fixed(key),
            Backend::None(reason) => return Err(Error::None(reason.clone())),
        };
        let user = Caller::User(context);
        let id = secret::id(key)?;
        let (description, payload) = match &self.fixed {
            // Of a volume from before Barbican came.
            Some(fixed) if id == FIXED_KEY => described(fixed)?,
            _ => barbican
                .get(user, id)
                .await
                .map_err(|error| of_key(key, error))?,
        };
        let copy = description.copy(&payload)?;
        Ok(barbican.store(user, &copy).await?.to_string())
    }

    fn copy_fixed(&self, key: &str) -> Result<String, Error> {
        if secret::id(key)? != FIXED_KEY {
            return Err(Error::NotFound(key.to_owned()));
        }
        let fixed = self.fixed.as_ref().ok_or(SecretError::NoFixedKey)?;
        secret::fixed_key(fixed)?;
        Ok(FIXED_KEY.to_string())
    }

    /// Whether a key could be deleted, as far as that can be known without asking.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, key: &str) -> Result<(), Error> {
        let id = secret::id(key)?;
        match &self.backend {
            _ if self.is_fixed_key(id) => Ok(()),
            Backend::Barbican(_) => Ok(()),
            Backend::Fixed => Err(Error::NotFound(key.to_owned())),
            Backend::None(reason) => Err(Error::None(reason.clone())),
        }
    }

    /// Whether a key is never deleted: there is only one fixed key, and others use it.
    pub fn keeps(&self, key: &str) -> bool {
        secret::id(key).is_ok_and(|id| self.is_fixed_key(id))
    }

    fn is_fixed_key(&self, id: Uuid) -> bool {
        let kept = self.fixed.is_some() || matches!(self.backend, Backend::Fixed);
        id == FIXED_KEY && kept
    }

    /// Deletes a key: as the user who asks, and as this service where that does not succeed. One that
    /// is gone already is no error.
    pub async fn delete(&self, context: &RequestContext, key: &str) -> Result<(), Error> {
        self.check(key)?;
        let id = secret::id(key)?;
        let Backend::Barbican(barbican) = &self.backend else {
            return Ok(());
        };
        if self.is_fixed_key(id) {
            return Ok(());
        }
        let as_user = barbican.delete(Caller::User(context), id).await;
        match (as_user, &self.own) {
            (Ok(()) | Err(openstack::Error::NotFound), _) => Ok(()),
            // Who is away is so for everybody.
            (Err(error @ openstack::Error::Away { .. }), _) | (Err(error), None) => {
                Err(error.into())
            }
            (Err(error), Some(own)) => {
                info!(key, %error, "Deleting the key with this service's own credentials");
                match barbican.delete(Caller::Service(own), id).await {
                    Ok(()) | Err(openstack::Error::NotFound) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// Whether keys are to be moved from `fixed_key` to Barbican.
    pub fn replaces_fixed_key(&self) -> bool {
        self.fixed.is_some() && matches!(self.backend, Backend::Barbican(_))
    }

    /// Stores the fixed key in Barbican, in this service's own project, for a user to read; its id.
    ///
    /// # Errors
    /// Also where there are no credentials of this service's own.
    pub async fn store_fixed(&self, user: Option<&str>) -> Result<String, Error> {
        let missing = |what: &str| Error::None(what.to_owned());
        let Backend::Barbican(barbican) = &self.backend else {
            return Err(missing("there is no Barbican to store the key in"));
        };
        let own = self.own.as_ref();
        let own = own.ok_or_else(|| missing("[keystone_authtoken] auth_url is not set"))?;
        let fixed = self.fixed.as_ref().ok_or(SecretError::NoFixedKey)?;
        let (description, payload) = described(fixed)?;
        let service = Caller::Service(own);
        let id = barbican
            .store(service, &description.copy(&payload)?)
            .await?;
        if let Some(user) = user
            && let Err(error) = barbican.let_read(service, id, user).await
        {
            self.discard(&id.to_string()).await;
            return Err(error.into());
        }
        Ok(id.to_string())
    }

    /// Deletes a key that this service stored and that nobody uses.
    pub async fn discard(&self, key: &str) {
        let (Backend::Barbican(barbican), Some(own)) = (&self.backend, &self.own) else {
            return;
        };
        let Ok(id) = secret::id(key) else { return };
        if let Err(error) = barbican.delete(Caller::Service(own), id).await {
            warn!(key, %error, "A key that nobody uses stays in Barbican");
        }
    }
}

fn described(fixed: &SecretString) -> Result<(Description, SecretSlice<u8>), Error> {
    let payload = secret::fixed_key(fixed)?;
    Ok((Description::of_fixed_key(&payload), payload))
}

fn of_key(key: &str, error: openstack::Error) -> Error {
    match error {
        openstack::Error::NotFound => Error::NotFound(key.to_owned()),
        error => error.into(),
    }
}
