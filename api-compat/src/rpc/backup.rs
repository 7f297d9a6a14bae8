//! The methods that a backup service answers (cinder/backup/rpcapi.py and manager.py).

use std::fmt;

use serde_json::{Map, Value};

use super::version::BACKUP_RPC;
use crate::ids::VolumeId;
use crate::messaging::{Failure, Request};
use crate::objects::{
    self, Backup, BackupDeviceInfo, BackupImport, LogLevel, ObjectError, Version, WireObject,
};
use crate::state::BackupStatus;

#[cfg(test)]
mod tests;

/// The topic that all backup services listen to.
pub const TOPIC: &str = "cinder-backup";

/// A request to a backup service, checked.
#[derive(Clone, Debug, PartialEq)]
pub enum BackupMethod {
    /// Cast by cinder-scheduler: begin a backup.
    CreateBackup {
        /// The backup.
        backup: Box<Backup>,
    },
    /// Cast by cinder-volume: the device to back up is ready.
    ContinueBackup {
        /// The backup.
        backup: Box<Backup>,
        /// The device.
        backup_device: BackupDeviceInfo,
    },
    /// Cast by cinder-api or cinder-volume: restore a backup.
    RestoreBackup {
        /// The backup.
        backup: Box<Backup>,
        /// The volume to restore to.
        volume_id: VolumeId,
        /// Whether nothing was ever written to that volume. A caller that talks to a mixed fleet
        /// leaves it out; then nothing is assumed of the volume.
        volume_is_new: bool,
    },
    /// Cast by cinder-api: delete a backup.
    DeleteBackup {
        /// The backup.
        backup: Box<Backup>,
    },
    /// Call by cinder-api: how can this backup be made known to another cloud?
    ExportRecord {
        /// The backup.
        backup: Box<Backup>,
    },
    /// Cast by cinder-api or another backup service: take over a backup from another cloud.
    ImportRecord {
        /// The row that was made for it.
        backup: Box<Backup>,
        /// The driver that made the backup.
        backup_service: String,
        /// The record ([`crate::backup_record`]).
        backup_url: String,
        /// Whom to hand the request on to, from the end, if it is not for our driver.
        backup_hosts: Vec<String>,
    },
    /// Cast by cinder-api: an operator says what a backup's status is.
    ResetStatus {
        /// The backup.
        backup: Box<Backup>,
        /// The status.
        status: BackupStatus,
    },
    /// Call by cinder-api: can a backup in any status be deleted?
    CheckSupportToForceDelete,
    /// Cast by cinder-api: log more or less.
    SetLogLevels {
        /// Which loggers, and the level.
        log_request: LogLevel,
    },
    /// Call by cinder-api: what is logged?
    GetLogLevels {
        /// Which loggers.
        log_request: LogLevel,
    },
    /// Fanout cast by cinder-scheduler when it starts: who is there?
    PublishServiceCapabilities,
    /// oslo.messaging's own `oslo_rpc_server_ping`; the answer is `pong`.
    Ping,
}

const PING: &str = "oslo_rpc_server_ping";

impl BackupMethod {
    /// Checks a request. `ping_enabled` is `rpc_ping_enabled`.
    ///
    /// # Errors
    /// [`Refusal`], which is logged and, for a call, answered. Nothing was done then.
    pub fn parse(request: &Request, ping_enabled: bool) -> Result<Self, Refusal> {
        let method = request.method.as_str();
        let refuse = |reason| Refusal {
            method: shortened(method),
            reason,
        };
        match endpoint(request, ping_enabled).map_err(refuse)? {
            Endpoint::Ping => return Ok(Self::Ping),
            Endpoint::Backup => {}
        }
        let mut args = Arguments(request.args.clone());
        args.read(method)
            .and_then(|parsed| args.finish(method).map(|()| parsed))
            .map_err(refuse)
    }
}

enum Endpoint {
    Backup,
    Ping,
}

/// Which endpoint is meant, as oslo_messaging/rpc/dispatcher.py finds it: first by namespace and
/// version, then by method.
fn endpoint(request: &Request, ping_enabled: bool) -> Result<Endpoint, Reason> {
    let text = request.version.as_deref().unwrap_or("1.0");
    let unsupported = || Reason::UnsupportedVersion(shortened(text));
    if request.namespace.is_some() {
        return Err(unsupported());
    }
    let version: Version = text.parse().map_err(|_| unsupported())?;
    if version.major == BACKUP_RPC.major && version <= BACKUP_RPC {
        return Ok(Endpoint::Backup);
    }
    if ping_enabled && version == Version::new(1, 0) {
        return match request.method == PING {
            true => Ok(Endpoint::Ping),
            false => Err(Reason::UnknownMethod),
        };
    }
    Err(unsupported())
}

struct Arguments(Map<String, Value>);

impl Arguments {
    fn read(&mut self, method: &str) -> Result<BackupMethod, Reason> {
        Ok(match method {
            "create_backup" => BackupMethod::CreateBackup {
                backup: self.backup()?,
            },
            "continue_backup" => BackupMethod::ContinueBackup {
                backup: self.backup()?,
                backup_device: self.object("backup_device")?,
            },
            "restore_backup" => BackupMethod::RestoreBackup {
                backup: self.backup()?,
                volume_id: self
                    .text("volume_id")?
                    .parse()
                    .map_err(|error| Reason::Arguments(format!("argument 'volume_id': {error}")))?,
                volume_is_new: self.flag("volume_is_new")?,
            },
            "delete_backup" => BackupMethod::DeleteBackup {
                backup: self.backup()?,
            },
            "export_record" => BackupMethod::ExportRecord {
                backup: self.backup()?,
            },
            "import_record" => BackupMethod::ImportRecord {
                backup: self.imported()?,
                backup_service: self.text("backup_service")?,
                backup_url: self.text("backup_url")?,
                backup_hosts: self.texts("backup_hosts")?,
            },
            "reset_status" => BackupMethod::ResetStatus {
                backup: self.backup()?,
                status: self
                    .text("status")?
                    .parse()
                    .map_err(|error| Reason::Arguments(format!("argument 'status': {error}")))?,
            },
            "check_support_to_force_delete" => BackupMethod::CheckSupportToForceDelete,
            "set_log_levels" => BackupMethod::SetLogLevels {
                log_request: self.object("log_request")?,
            },
            "get_log_levels" => BackupMethod::GetLogLevels {
                log_request: self.object("log_request")?,
            },
            "publish_service_capabilities" => BackupMethod::PublishServiceCapabilities,
            _ => return Err(Reason::UnknownMethod),
        })
    }

    fn take(&mut self, name: &'static str) -> Result<Value, Reason> {
        self.0.remove(name).ok_or(Reason::MissingArgument(name))
    }

    fn object<T: WireObject>(&mut self, name: &'static str) -> Result<T, Reason> {
        objects::decode(self.take(name)?).map_err(Reason::Object)
    }

    fn backup(&mut self) -> Result<Box<Backup>, Reason> {
        self.object("backup").map(Box::new)
    }

    /// The API sends a `BackupImport`; an ordinary backup does as well.
    fn imported(&mut self) -> Result<Box<Backup>, Reason> {
        let value = self.take("backup")?;
        let backup = match objects::decode(value.clone()) {
            Err(ObjectError::OtherObject { .. }) => objects::decode(value),
            decoded => decoded.map(|BackupImport(backup)| backup),
        };
        backup.map(Box::new).map_err(Reason::Object)
    }

    fn text(&mut self, name: &'static str) -> Result<String, Reason> {
        match self.take(name)? {
            Value::String(text) => Ok(text),
            _ => Err(Reason::Arguments(format!(
                "argument '{name}' is not a text"
            ))),
        }
    }

    fn texts(&mut self, name: &'static str) -> Result<Vec<String>, Reason> {
        serde_json::from_value(self.take(name)?)
            .map_err(|_| Reason::Arguments(format!("argument '{name}' is not a list of texts")))
    }

    fn flag(&mut self, name: &'static str) -> Result<bool, Reason> {
        match self.0.remove(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(Reason::Arguments(format!(
                "argument '{name}' is not true or false"
            ))),
        }
    }

    fn finish(&self, method: &str) -> Result<(), Reason> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(Reason::Arguments(format!(
                "BackupManager.{method}() got an unexpected keyword argument '{}'",
                shortened(name)
            ))),
        }
    }
}

/// A request that is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    method: String,
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    UnknownMethod,
    UnsupportedVersion(String),
    MissingArgument(&'static str),
    Arguments(String),
    Object(ObjectError),
}

impl Refusal {
    /// What a caller is answered: the exception that a Python server would have raised.
    pub fn failure(&self) -> Failure {
        match &self.reason {
            Reason::UnknownMethod => Failure::no_such_method(&self.method),
            Reason::UnsupportedVersion(version) => {
                Failure::unsupported_version(version, &self.method)
            }
            Reason::MissingArgument(name) => Failure::type_error(format!(
                "BackupManager.{}() missing 1 required positional argument: '{name}'",
                self.method
            )),
            Reason::Arguments(text) => Failure::type_error(text.clone()),
            Reason::Object(ObjectError::IncompatibleVersion {
                name,
                version,
                supported,
            }) => Failure::incompatible_object(name, version, &supported.to_string()),
            Reason::Object(error) => Failure::type_error(error.to_string()),
        }
    }
}

/// For the log: what was asked for, and what is wrong with it.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "request {} refused: {}",
            self.method,
            self.failure().message
        )
    }
}

impl std::error::Error for Refusal {}

/// Keeps enough of a hostile text to recognise it, not all of it.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
