//! The configuration of a Cinder service, as oslo.config reads it.
//!
//! [`Config::load`] finds the files, merges them with the environment and the command line, and
//! gives every option a type. Options that the service does not read are accepted in silence:
//! `cinder.conf` is shared by all of Cinder's services.
//!
//! | module | does |
//! |---|---|
//! | [`files`] | decides which files are read, and reads them: the crate's only I/O |
//! | [`ini`] | parses one file |
//! | `old_names` | moves values from former names of options to today's |
//! | `layers` | merges files, environment and command line |
//! | `reader`, [`substitute`](mod@substitute), [`value`] | finds an option's texts, replaces `$name`, parses |
//! | [`registry`], [`options`] | declares the options |
//! | [`transport_url`], [`database_url`], [`tls`] | take URLs apart |
//! | [`sample`](mod@sample), [`check`], [`warning`] | write the sample file; find what is wrong or suspect |

pub mod check;
pub mod database_url;
pub mod error;
pub mod files;
pub mod ini;
mod layers;
mod old_names;
pub mod options;
mod reader;
pub mod registry;
pub mod sample;
pub mod substitute;
pub mod tls;
pub mod transport_url;
mod url;
pub mod value;
pub mod warning;

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::ExposeSecret;

pub use database_url::DatabaseUrl;
pub use error::ConfigError;
pub use files::ConfigPath;
pub use options::attach::Attach;
pub use options::backup::{Backup, Ceph};
pub use options::cinderblock::Cinderblock;
pub use options::database::Database;
pub use options::keys::{
    Barbican, BarbicanServiceUser, Credentials, Interface, KeyManager, KeystoneAuthtoken,
    ServiceUser,
};
pub use options::logging::{LogLevels, Logging};
pub use options::messaging::{LoginMethod, Messaging, Notifications, Rabbit};
pub use options::quota::Quota;
pub use options::service::Service;
pub use reader::Machine;
pub use sample::sample;
pub use transport_url::TransportUrl;
pub use value::seconds;
pub use warning::Warning;

use error::{Origin, Reason};
use reader::{Noted, Reader};
use registry::Effect;

/// What a configuration is made of.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Project whose `<project>.conf` is looked for: `cinder`.
    pub project: String,
    /// Files and directories named on the command line, in its order.
    pub paths: Vec<ConfigPath>,
    /// Options of `[DEFAULT]` given on the command line, by their names in files.
    pub overrides: Vec<(String, String)>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// What is not written anywhere.
    pub machine: Machine,
}

/// Every option that the service reads.
#[derive(Debug, Clone)]
pub struct Config {
    /// Identity and heartbeat.
    pub service: Service,
    /// The backup service.
    pub backup: Backup,
    /// The Ceph driver.
    pub ceph: Ceph,
    /// How volumes that are not in Ceph are reached.
    pub attach: Attach,
    /// Quotas.
    pub quota: Quota,
    /// Messaging in general.
    pub messaging: Messaging,
    /// The RabbitMQ driver, with what the query of `[DEFAULT] transport_url` overrides.
    pub rabbit: Rabbit,
    /// Notifications.
    pub notifications: Notifications,
    /// The RabbitMQ driver of notifications, with what the query of their transport URL overrides.
    pub notification_rabbit: Rabbit,
    /// The database.
    pub database: Database,
    /// `[database] connection` with `connection_parameters`, taken apart.
    pub database_url: DatabaseUrl,
    /// The key manager.
    pub key_manager: KeyManager,
    /// How Barbican is reached.
    pub barbican: Barbican,
    /// Who this service is to Barbican beside a user.
    pub barbican_service_user: BarbicanServiceUser,
    /// Who this service is beside a user.
    pub service_user: ServiceUser,
    /// Who this service is by itself.
    pub keystone_authtoken: KeystoneAuthtoken,
    /// Logging.
    pub logging: Logging,
    /// What Cinder does not have.
    pub cinderblock: Cinderblock,
    files: Vec<PathBuf>,
    unset: Unset,
    warnings: Vec<Warning>,
}

/// What has to be set and is not.
#[derive(Debug, Clone)]
struct Unset {
    /// Names and folders of configuration files, if none was found at all.
    searched: Option<([String; 2], Vec<PathBuf>)>,
    backup_driver: bool,
    connection: bool,
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// Files that cannot be found, read or parsed, and values that cannot be used. What a service
    /// cannot work with although each value is well formed, [`Config::check`] tells.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let machine = &sources.machine;
        let plan = files::plan(
            &sources.project,
            &machine.program,
            &sources.paths,
            &sources.environment,
            std::path::Path::exists,
        );
        let mut files = files::read(&plan)?;
        let paths: Vec<PathBuf> = files.iter().map(|file| file.path.clone()).collect();
        let mut warnings: Vec<Warning> = files.iter().flat_map(warning::suspects).collect();
        warnings.extend(warning::of_environment(&sources.environment));
        for file in &mut files {
            warnings.extend(old_names::translate(file));
        }
        let layers = layers::merge(files, &sources.environment, &sources.overrides);
        let reader = Reader::new(&layers, machine)?;
        warnings.extend(without_effect(&reader));

        let is_unset = |group, name| reader.origin(group, name) == Origin::Default;
        let unset = Unset {
            searched: paths.is_empty().then(|| {
                let names = [&sources.project, &machine.program];
                let places = files::places(&sources.project, &sources.environment);
                (names.map(|name| format!("{name}.conf")), places)
            }),
            backup_driver: is_unset("DEFAULT", "backup_driver"),
            connection: is_unset("database", "connection"),
        };
        let mut config = Self::read(&reader, &sources.environment, unset)
            .map_err(|noted| reader.error_of(noted))?;
        config.backup.name_driver();
        config.files = paths;
        warnings.extend(config.suspects());
        config.warnings = warnings;
        Ok(config)
    }

    /// Every option, or all that is wrong with them, noted.
    fn read(
        reader: &Reader<'_>,
        environment: &BTreeMap<String, String>,
        unset: Unset,
    ) -> Result<Self, Noted> {
        // Each is read before the first is asked whether that went well.
        let service = Service::read(reader);
        let backup = Backup::read(reader);
        let ceph = Ceph::read(reader);
        let attach = Attach::read(reader);
        let quota = Quota::read(reader);
        let messaging = Messaging::read(reader);
        let url = messaging.as_ref().map(|messaging| &messaging.transport_url);
        let rabbit = rabbit(reader, "DEFAULT", url.ok());
        let notifications = Notifications::read(reader);
        let own_url = notifications.as_ref().ok();
        let notification_rabbit = match own_url.and_then(|own| own.transport_url.as_ref()) {
            Some(url) => self::rabbit(reader, "oslo_messaging_notifications", Some(url)),
            None => rabbit.clone(),
        };
        let database = Database::read(reader);
        let database_url = database
            .as_ref()
            .map_err(|noted| *noted)
            .and_then(|database| reader.note(database_url(reader, database, environment)));
        let key_manager = KeyManager::read(reader);
        let barbican = Barbican::read(reader);
        let barbican_service_user = BarbicanServiceUser::read(reader);
        let service_user = ServiceUser::read(reader);
        let keystone_authtoken = KeystoneAuthtoken::read(reader);
        let logging = Logging::read(reader);
        let cinderblock = Cinderblock::read(reader);
        Ok(Self {
            service: service?,
            backup: backup?,
            ceph: ceph?,
            attach: attach?,
            quota: quota?,
            messaging: messaging?,
            rabbit: rabbit?,
            notifications: notifications?,
            notification_rabbit: notification_rabbit?,
            database: database?,
            database_url: database_url?,
            key_manager: key_manager?,
            barbican: barbican?,
            barbican_service_user: barbican_service_user?,
            service_user: service_user?,
            keystone_authtoken: keystone_authtoken?,
            logging: logging?,
            cinderblock: cinderblock?,
            files: Vec::new(),
            unset,
            warnings: Vec::new(),
        })
    }

    /// What is suspect in values.
    fn suspects(&self) -> Vec<Warning> {
        let urls = [&self.messaging.transport_url]
            .into_iter()
            .chain(&self.notifications.transport_url);
        let mut suspects = warning::of_urls(urls, &self.database_url);
        suspects.extend(warning::of_drivers(&self.notifications.driver));
        suspects
    }

    /// The files that were read, in order; later ones win.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// What an operator should be told: nothing here keeps the service from working, but all of
    /// it may mean something else than was intended.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Brokers of notifications: their own, or those of everything else.
    #[must_use]
    pub fn notification_url(&self) -> &TransportUrl {
        let own = self.notifications.transport_url.as_ref();
        own.unwrap_or(&self.messaging.transport_url)
    }
}

/// The RabbitMQ driver's options for the transport with this URL, if it could be read.
fn rabbit(
    reader: &Reader<'_>,
    group: &'static str,
    url: Option<&TransportUrl>,
) -> Result<Rabbit, Noted> {
    let Some(url) = url else {
        return Rabbit::read(reader);
    };
    let known = |name: &str| options::find("oslo_messaging_rabbit", name).is_some();
    let unknown = url.query.keys().filter(|name| !known(name));
    let query = unknown
        .map(|name| {
            let name = name.clone();
            reader.note(Err(ConfigError::UnknownQueryOption { group, name }))
        })
        .fold(Ok(()), Result::and);
    let rabbit = Rabbit::read(&reader.with_query(&url.query));
    query.and(rabbit)
}

/// The options that somebody relies on although they have no effect here.
fn without_effect(reader: &Reader<'_>) -> impl Iterator<Item = Warning> {
    let ignored = options::all().filter(|spec| !spec.has_effect());
    ignored.filter_map(|spec| {
        Some(Warning::WithoutEffect {
            option: format!("[{}] {}", spec.group, spec.name),
            origin: reader.changed(spec)?,
            is_missed: spec.effect == Effect::Missing,
            instead: spec.prose(),
        })
    })
}

fn database_url(
    reader: &Reader<'_>,
    database: &Database,
    environment: &BTreeMap<String, String>,
) -> Result<DatabaseUrl, ConfigError> {
    let parsed = DatabaseUrl::parse(
        database.connection.expose_secret(),
        &database.connection_parameters,
        environment,
    );
    parsed.map_err(|error| reader.error("database", "connection", Reason::DatabaseUrl(error)))
}

#[cfg(test)]
mod tests;
