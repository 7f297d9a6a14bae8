//! From the configuration to what each room wants to know.

mod files;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, bail};
use api_compat::config::database_url::Backend;
use api_compat::config::{Config, ConfigPath, Machine, Sources, seconds};
use api_compat::objects::ObjectHistory;
use api_compat::rpc::backup::TOPIC;
use api_compat::rpc::version;

use crate::amqp;
use crate::attach::OsBrick;
use crate::db::{self, QuotaRules, Versions};
use crate::manager::{Ceilings, Settings};
use crate::rbd::ClusterOptions;
use crate::transfer::Budget;
use crate::vault::{Engine, ImageFormat, Vault};

pub use files::ConfigFiles;

/// How long the backup cluster may take to answer the first call.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one try to read or write in the database may take: longer than MySQL lets a statement wait for
/// a lock (`innodb_lock_wait_timeout`, 50 s), so that only a server that is gone is given up.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(120);

/// Connections where the configuration sets no limit.
const UNLIMITED: u32 = 1000;

/// The shortest wait before a transaction is tried again, since what ends an operation is tried without end.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// Reads the configuration of a worker on this machine, from these files and directories or where Cinder
/// looks for them, with these options of `[DEFAULT]` on top.
///
/// # Errors
/// If it cannot work, with every reason at once.
pub fn load(paths: &[ConfigPath], overrides: Vec<(String, String)>) -> anyhow::Result<Config> {
    let sources = Sources {
        project: "cinder".to_owned(),
        paths: paths.to_vec(),
        overrides,
        environment: environment(std::env::vars_os()),
        machine: Machine {
            hostname: gethostname::gethostname().to_string_lossy().into_owned(),
            address: address().to_string(),
            program: TOPIC.to_owned(),
        },
    };
    let config = Config::load(&sources)?;
    let problems = config.check();
    let mut texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    texts.extend(of_no_use(&config));
    if !texts.is_empty() {
        // A name that nobody knows may be what was meant to set the option that is missing.
        let warnings = config.warnings().iter();
        let telling = warnings.filter(|warning| !warning.is_harmless());
        let telling: Vec<String> = telling.map(|text| format!("\n  note: {text}")).collect();
        let reasons = texts.join("\n  ");
        bail!(
            "the configuration cannot work:\n  {reasons}{}",
            telling.concat()
        );
    }
    Ok(config)
}

/// The certificates and keys that cannot be used, each with its option.
fn of_no_use(config: &Config) -> Vec<String> {
    let tls = &config.database_url.tls;
    let words = match config.database_url.backend {
        Backend::Postgres => ["sslrootcert", "sslcert", "sslkey"],
        Backend::MySql | Backend::Sqlite => ["ssl_ca", "ssl_cert", "ssl_key"],
    };
    let of_database = words.into_iter().zip([&tls.ca, &tls.certificate, &tls.key]);
    let of_broker = amqp::Options::from_config(config).err();
    let of_broker = of_broker.map(|error| error.to_string());
    of_broker
        .into_iter()
        .chain(of_database.filter_map(|(word, path)| {
            let path = path.as_ref()?;
            let error = std::fs::read(path).err()?;
            let path = path.display();
            Some(format!("[database] connection: {word}: {path}: {error}"))
        }))
        .collect()
}

/// The variables that are texts; no option's value is anything else.
fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<String, String> {
    variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The address by which others reach this host: that of the route to the outside. Nothing is sent.
fn address() -> IpAddr {
    let probe = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // Any address outside will do, one reserved for documentation does no harm.
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 80))?;
        socket.local_addr()
    };
    probe().map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip())
}

/// How to reach the database.
pub fn database(config: &Config) -> db::Options {
    let options = &config.database;
    // SQLAlchemy's own default where the option is empty; without a limit the server's counts.
    let connections = match (options.max_pool_size, options.max_overflow) {
        (0, _) | (_, Some(-1)) => UNLIMITED,
        (size, overflow) => {
            let overflow = u32::try_from(overflow.unwrap_or(10)).unwrap_or(50);
            size.saturating_add(overflow)
        }
    };
    let first_wait = seconds(options.db_retry_interval).max(SHORTEST_WAIT);
    let longest_wait = match options.db_inc_retry_interval {
        true => seconds(options.db_max_retry_interval).max(first_wait),
        false => first_wait,
    };
    db::Options {
        url: config.database_url.clone(),
        connections,
        recycle: u64::try_from(options.connection_recycle_time)
            .ok()
            .map(seconds),
        acquire: seconds(options.pool_timeout.unwrap_or(30)),
        sql_mode: options
            .mysql_sql_mode
            .clone()
            .filter(|mode| !mode.is_empty()),
        wsrep_sync_wait: options.mysql_wsrep_sync_wait,
        // The first of the attempts is none.
        start_tries: u32::try_from(options.max_retries)
            .ok()
            .map(|attempts| attempts.saturating_sub(1)),
        start_interval: seconds(options.retry_interval),
        transaction_tries: usize::try_from(options.db_max_retries).unwrap_or(usize::MAX),
        transaction_wait: first_wait,
        transaction_longest_wait: longest_wait,
        transaction_limit: TRANSACTION_LIMIT,
    }
}

/// The versions of objects that every registered service understands.
///
/// # Errors
/// When one of them is too old to be spoken to.
pub fn history(versions: &[Versions]) -> anyhow::Result<ObjectHistory> {
    let objects = versions.iter().map(|row| row.objects.as_deref());
    let history = version::object_history(objects)?;
    let volume = versions
        .iter()
        .filter(|row| row.binary.as_deref() == Some("cinder-volume"))
        .map(|row| row.rpc.as_deref());
    version::require(volume, version::VOLUME_RPC).context("cinder-volume")?;
    Ok(history)
}

/// How the manager behaves.
pub fn manager(config: &Config) -> Settings {
    Settings {
        host: config.service.host.clone(),
        availability_zone: config.service.storage_availability_zone.clone(),
        driver: config.backup.backup_driver.clone(),
        progress_interval: Duration::from_secs(config.backup.backup_timer_interval),
        max_source_snapshots: config.ceph.backup_ceph_max_snapshots,
        allowed_containers: config.cinderblock.allowed_containers.clone(),
        independent_backups: config.cinderblock.independent_backups,
        continue_timeout: seconds(config.cinderblock.continue_timeout),
        takeover_after: match config.cinderblock.takeover_after {
            0 => None,
            after => Some(seconds(after)),
        },
        service_down_time: seconds(config.service.service_down_time),
        ceilings: ceilings(config),
        message_ttl: seconds(config.service.message_ttl),
        quota: QuotaRules {
            until_refresh: i32::try_from(config.quota.until_refresh).unwrap_or(i32::MAX),
            max_age: i64::try_from(config.quota.max_age).unwrap_or(i64::MAX),
            reservation_expire: i64::try_from(config.quota.reservation_expire).unwrap_or(i64::MAX),
        },
    }
}

/// How much the worker does at once.
pub fn ceilings(config: &Config) -> Ceilings {
    Ceilings {
        operations: config.backup.backup_max_operations,
        of_a_project: config.cinderblock.max_operations_per_project,
        transfers: config.cinderblock.transfer_operations,
        backup_bandwidth: config.cinderblock.backup_bandwidth,
        restore_bandwidth: config.cinderblock.restore_bandwidth,
    }
}

/// How volumes that are not in Ceph are attached.
pub fn os_brick(config: &Config) -> OsBrick {
    OsBrick {
        python: config.cinderblock.os_brick_python.clone(),
        config_files: config.files().to_vec(),
        state_path: config.service.state_path.clone(),
        host: config.service.host.clone(),
        my_ip: config.service.my_ip.clone(),
        rootwrap_config: config.attach.rootwrap_config.clone(),
        multipath: config.attach.use_multipath_for_image_xfer,
        enforce_multipath: config.attach.enforce_multipath_for_image_xfer,
        scan_tries: config.attach.num_volume_device_scan_tries,
    }
}

/// The backup pools.
///
/// # Errors
/// When the memory for transfers does not fit this machine's numbers.
pub fn vault(config: &Config) -> anyhow::Result<Vault> {
    let ceph = &config.ceph;
    let cluster = ClusterOptions::new(&ceph.backup_ceph_user)
        .cluster_name(ceph.cluster_name())
        .conf_file(&ceph.backup_ceph_conf)
        .connect_timeout(CONNECT_TIMEOUT);
    let format = ImageFormat {
        stripe_unit: ceph.backup_ceph_stripe_unit,
        stripe_count: ceph.backup_ceph_stripe_count,
        journaling: ceph.backup_ceph_image_journals,
    };
    let memory = usize::try_from(config.cinderblock.transfer_memory)
        .context("[cinderblock] transfer_memory")?;
    let engine = Engine {
        budget: Budget::new(memory),
        depth: config.cinderblock.transfer_depth,
        scanners: config.cinderblock.diff_scanners,
        restore_damaged: config.cinderblock.restore_damaged,
        trust_object_map: config.cinderblock.trust_object_map,
        checkpoint_interval: Duration::from_secs(config.cinderblock.checkpoint_interval),
        // A page, at least: zero means nothing.
        chunk_size: ceph.backup_ceph_chunk_size.max(4096),
        zero_excess: ceph.restore_discard_excess_bytes,
    };
    let pool = ceph.backup_ceph_pool.clone();
    Ok(Vault::new(cluster, pool, format, engine))
}
