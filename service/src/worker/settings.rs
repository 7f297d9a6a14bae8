//! From the configuration to what each room wants to know.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, bail};
use api_compat::config::database_url::Backend;
use api_compat::config::{Config, Machine, Sources, seconds};
use api_compat::objects::ObjectHistory;
use api_compat::rpc::version;

use super::BINARY;
use super::command_line::CommandLine;
use crate::amqp;
use crate::attach::OsBrick;
use crate::db::{self, QuotaRules, Versions};
use crate::manager::Settings;
use crate::rbd::ClusterOptions;
use crate::transfer::Budget;
use crate::vault::{Engine, ImageFormat, Vault};

/// How long the backup cluster may take to answer the first call.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one try to read or write in the database may take: longer than MySQL lets a statement wait for
/// a lock (`innodb_lock_wait_timeout`, 50 s), so that only a server that is gone is given up.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(120);

/// Connections where the configuration sets no limit.
const UNLIMITED: u32 = 1000;

/// The shortest wait before a transaction is tried again, since what ends an operation is tried without end.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// Reads the configuration and refuses one that cannot work, with every reason at once.
pub fn load(command_line: &CommandLine) -> anyhow::Result<Config> {
    let sources = Sources {
        project: "cinder".to_owned(),
        paths: command_line.paths.clone(),
        overrides: command_line.overrides(),
        environment: environment(std::env::vars_os()),
        machine: Machine {
            hostname: gethostname::gethostname().to_string_lossy().into_owned(),
            address: address().to_string(),
            program: BINARY.to_owned(),
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
        service_down_time: seconds(config.service.service_down_time),
        max_operations: config.backup.backup_max_operations,
        message_ttl: seconds(config.service.message_ttl),
        quota: QuotaRules {
            until_refresh: i32::try_from(config.quota.until_refresh).unwrap_or(i32::MAX),
            max_age: i64::try_from(config.quota.max_age).unwrap_or(i64::MAX),
            reservation_expire: i64::try_from(config.quota.reservation_expire).unwrap_or(i64::MAX),
        },
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
        // A page, at least: zero means nothing.
        chunk_size: ceph.backup_ceph_chunk_size.max(4096),
        zero_excess: ceph.restore_discard_excess_bytes,
    };
    let pool = ceph.backup_ceph_pool.clone();
    Ok(Vault::new(cluster, pool, format, engine))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;
    use std::path::Path;

    use api_compat::config::{ConfigPath, options};

    use super::*;

    #[test]
    fn variables_that_are_no_texts_are_passed_over() {
        let odd = || OsString::from_vec(vec![b'x', 0xff]);
        let variables = [
            ("A".into(), "1".into()),
            ("B".into(), odd()),
            (odd(), "2".into()),
        ];
        let expected = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert_eq!(environment(variables.into_iter()), expected);
    }

    /// How the database is reached with one more option in the environment.
    fn database_with(option: &str, value: &str) -> db::Options {
        let config = Config::load(&Sources {
            project: "cinder".to_owned(),
            paths: vec![ConfigPath::File("/dev/null".into())],
            overrides: Vec::new(),
            environment: [(option.to_owned(), value.to_owned())].into(),
            machine: Machine {
                hostname: "node1".to_owned(),
                address: "10.0.0.1".to_owned(),
                program: BINARY.to_owned(),
            },
        });
        database(&config.unwrap())
    }

    #[test]
    fn a_pool_without_a_limit_has_a_thousand_connections() {
        for (option, value, connections) in [
            ("OS_DATABASE__MAX_POOL_SIZE", "7", 57),
            ("OS_DATABASE__MAX_POOL_SIZE", "0", UNLIMITED),
            ("OS_DATABASE__MAX_OVERFLOW", "-1", UNLIMITED),
        ] {
            let options = database_with(option, value);
            assert_eq!(options.connections, connections, "{option}");
        }
        let kept = database_with("OS_DATABASE__CONNECTION_RECYCLE_TIME", "-1");
        assert_eq!(kept.recycle, None);
    }

    #[test]
    fn the_first_attempt_to_reach_the_database_counts() {
        for (attempts, again) in [
            ("10", Some(9)),
            ("1", Some(0)),
            ("0", Some(0)),
            ("-1", None),
        ] {
            let options = database_with("OS_DATABASE__MAX_RETRIES", attempts);
            assert_eq!(options.start_tries, again, "{attempts}");
        }
    }

    #[test]
    fn a_database_that_refuses_is_not_asked_without_a_pause() {
        let with = |option: &str| {
            let options = database_with(option, "0");
            (options.transaction_wait, options.transaction_longest_wait)
        };
        let (first, longest) = with("OS_DATABASE__DB_RETRY_INTERVAL");
        assert_eq!(first, SHORTEST_WAIT);
        assert_eq!(longest, Duration::from_secs(10));
        let (first, longest) = with("OS_DATABASE__DB_MAX_RETRY_INTERVAL");
        assert_eq!(
            (first, longest),
            (Duration::from_secs(1), Duration::from_secs(1))
        );
    }

    /// A file of the service without its tests, or that of `api-compat` that takes URLs apart; each
    /// chain of fields on one line.
    fn source(path: &Path) -> String {
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.join("\n").replace("\n.", ".")
    }

    fn sources() -> Vec<String> {
        fn find(path: &Path, found: &mut Vec<String>) {
            if path.is_dir() {
                for entry in std::fs::read_dir(path).unwrap() {
                    find(&entry.unwrap().path(), found);
                }
            } else {
                found.push(source(path));
            }
        }
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = vec![source(&here.join("../api-compat/src/config/mod.rs"))];
        find(&here.join("src"), &mut found);
        found
    }

    /// Whether `text` holds `part` as a whole, not as a part of longer names.
    fn holds(text: &str, part: &str) -> bool {
        let in_name = |c: char| c == '_' || c.is_alphanumeric();
        text.match_indices(part).any(|(start, _)| {
            let (before, after) = (&text[..start], &text[start + part.len()..]);
            !before.ends_with(in_name) && !after.starts_with(in_name)
        })
    }

    /// What a file calls the options that are the field `field` of `Config`, of the type `kind`: its
    /// parameters and fields of that type, and what it takes out of the configuration.
    fn names_of(source: &str, field: &str, kind: &str) -> Vec<String> {
        let mut names = vec![format!("config.{field}")];
        for end in [
            format!("= &config.{field};"),
            format!("= &self.config.{field};"),
        ] {
            let before = source
                .match_indices(&end)
                .map(|(start, _)| &source[..start]);
            names.extend(before.filter_map(|before| {
                let (_, name) = before.trim_end().rsplit_once("let ")?;
                Some(name.to_owned())
            }));
        }
        for kind in [format!(": &{kind}"), format!(": {kind}")] {
            let typed = source.match_indices(&kind).filter(|(start, _)| {
                let next = source[start + kind.len()..].chars().next();
                next.is_none_or(|next| next != '_' && !next.is_alphanumeric())
            });
            let before = typed.map(|(start, _)| &source[..start]);
            names.extend(before.filter_map(|before| {
                let name = before.rsplit(|c: char| c != '_' && !c.is_alphanumeric());
                name.into_iter().next().map(str::to_owned)
            }));
        }
        names
    }

    /// An option whose field nobody reads belongs to those that are known to have no effect.
    #[test]
    fn every_option_has_an_effect_or_is_said_to_have_none() {
        let sources = sources();
        let used = |field: &str, kind: &str, name: &str| {
            sources.iter().any(|source| {
                let mut names = names_of(source, field, kind).into_iter();
                names.any(|options| holds(source, &format!("{options}.{name}")))
            })
        };
        assert!(used("database", "Database", "max_pool_size"));
        // Others have fields of these names.
        assert!(!used("logging", "Logging", "host"));
        assert!(!used("ceph", "Ceph", "max_pool_size"));
        let tables = [
            ("service", "Service", options::service::Service::OPTIONS),
            ("backup", "Backup", options::backup::Backup::OPTIONS),
            ("ceph", "Ceph", options::backup::Ceph::OPTIONS),
            ("attach", "Attach", options::attach::Attach::OPTIONS),
            ("quota", "Quota", options::quota::Quota::OPTIONS),
            (
                "messaging",
                "Messaging",
                options::messaging::Messaging::OPTIONS,
            ),
            ("logging", "Logging", options::logging::Logging::OPTIONS),
            (
                "cinderblock",
                "Cinderblock",
                options::cinderblock::Cinderblock::OPTIONS,
            ),
            ("database", "Database", options::database::Database::OPTIONS),
            (
                "notifications",
                "Notifications",
                options::messaging::Notifications::OPTIONS,
            ),
            ("rabbit", "Rabbit", options::messaging::Rabbit::OPTIONS),
            (
                "key_manager",
                "KeyManager",
                options::keys::KeyManager::OPTIONS,
            ),
            ("barbican", "Barbican", options::keys::Barbican::OPTIONS),
            (
                "service_user",
                "Credentials",
                options::keys::ServiceUser::OPTIONS,
            ),
            (
                "keystone_authtoken",
                "Credentials",
                options::keys::KeystoneAuthtoken::OPTIONS,
            ),
            (
                "barbican_service_user",
                "Credentials",
                options::keys::BarbicanServiceUser::OPTIONS,
            ),
        ];
        let declared: usize = tables.iter().map(|(_, _, specs)| specs.len()).sum();
        let honoured = options::all().filter(|spec| spec.has_effect()).count();
        assert_eq!(declared, honoured);
        // A start compares report_interval with it, and that is all that Python's does, too.
        let compared = |name: &str| name == "service_down_time";
        let mut idle = Vec::new();
        for (field, kind, specs) in tables {
            let specs = specs.iter().filter(|spec| !compared(spec.name));
            let specs = specs.filter(|spec| !used(field, kind, spec.name));
            idle.extend(specs.map(|spec| (spec.group, spec.name)));
        }
        assert!(idle.is_empty(), "{idle:?}");
    }
}
