//! The whole way: from files, environment and command line to typed options.

use std::path::PathBuf;

use super::options::backup::CEPH_DRIVER;
use super::registry::Default;
use super::tls::TlsMode;
use super::value::Multi;
use super::*;

mod names;
mod refusals;

/// A directory of configuration files that disappears with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let process = std::process::id();
        let folder = std::env::temp_dir().join(format!("config-{process}-{name}"));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        Self(folder)
    }

    fn sources(&self) -> Sources {
        let names = ["a.conf", "b.conf"].map(|name| self.0.join(name));
        let existing = names.into_iter().filter(|path| path.exists());
        Sources {
            project: "no-such-project".to_owned(),
            paths: existing.map(ConfigPath::File).collect(),
            overrides: Vec::new(),
            environment: BTreeMap::new(),
            machine: Machine {
                hostname: "node1".to_owned(),
                address: "192.0.2.1".to_owned(),
                program: "cinder-backup".to_owned(),
            },
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn load(name: &str, text: &str) -> Result<Config, ConfigError> {
    Config::load(&Folder::new(name, &[("a.conf", text)]).sources())
}

#[test]
fn how_postgresql_is_encrypted_may_be_said_by_the_environment() {
    let text = "[database]\nconnection = postgresql+psycopg2://c:p@db/cinder\n";
    let folder = Folder::new("environment-tls", &[("a.conf", text)]);
    let tls_of = |variables: &[(&str, &str)]| {
        let mut sources = folder.sources();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        sources.environment = variables.iter().map(owned).collect();
        Config::load(&sources).unwrap().database_url.tls
    };
    assert_eq!(tls_of(&[]).mode, TlsMode::Preferred);
    let tls = tls_of(&[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", "/ca.pem")]);
    assert_eq!(tls.mode, TlsMode::VerifyIdentity);
    assert_eq!(tls.ca, Some(PathBuf::from("/ca.pem")));
}

#[test]
fn without_any_file_every_default_is_read() {
    let config = load("defaults", "").unwrap();
    assert_eq!(config.service.host, "node1");
    assert_eq!(config.service.my_ip, "192.0.2.1");
    assert_eq!(config.rabbit.processname, "cinder-backup");
    let database = config.database_url.database.as_deref();
    assert_eq!(database, Some("/var/lib/cinder/cinder.sqlite"));
    assert_eq!(config.notifications.topics, ["notifications"]);
    assert_eq!(config.notifications.driver, Multi::default());
    assert_eq!(config.cinderblock.allowed_containers, [""; 0]);
    assert_eq!(config.cinderblock.transfer_memory, 128 << 20);
    assert!(config.warnings().is_empty());
}

/// An option as the Python libraries and Cinder's source declare it.
#[derive(serde::Deserialize)]
struct Declared {
    group: String,
    name: String,
    r#type: String,
    default: Option<String>,
    min: Option<f64>,
    max: Option<f64>,
    choices: Vec<String>,
    deprecated: Vec<(String, String)>,
}

fn declared() -> Vec<Declared> {
    let declared = include_str!("../../tests/fixtures/oslo_config/options.json");
    serde_json::from_str(declared).unwrap()
}

#[test]
fn options_are_declared_as_in_python() {
    let declared = declared();
    // Of libraries that came with Cinder 21 to 28, which those of 29 have no more.
    let former = |name| {
        matches!(
            name,
            "heartbeat_in_pthread" | "watch_log_file" | "mysql_enable_ndb"
        )
    };
    // Python's zero or no lower bound where a number cannot be negative or is of no use as zero.
    let stricter = |name| name == "rpc_response_timeout";
    for spec in options::all().filter(|spec| spec.group != "cinderblock" && !former(spec.name)) {
        let place = format!("[{}] {}", spec.group, spec.name);
        let python = declared
            .iter()
            .find(|d| d.group == spec.group && d.name == spec.name)
            .unwrap_or_else(|| panic!("{place} is not Python's"));
        assert_eq!(spec.type_name, python.r#type, "{place}");
        match spec.default {
            Default::Text(text) => assert_eq!(Some(text), python.default.as_deref(), "{place}"),
            Default::None => assert_eq!(python.default.as_deref().unwrap_or(""), "", "{place}"),
            Default::Hostname | Default::Address | Default::Program => {
                assert_eq!(python.default.as_deref(), Some("<dynamic>"), "{place}");
            }
        }
        let bound = |bound: Option<f64>| bound.filter(|b| *b > 0.0);
        if !stricter(spec.name) {
            assert_eq!(bound(spec.limits.min), bound(python.min), "{place}");
        }
        assert_eq!(spec.limits.max, python.max, "{place}");
        assert_eq!(spec.choices, python.choices, "{place}");
        for (group, name) in &python.deprecated {
            let known = spec.old_names.contains(&(group, name));
            assert!(known, "{place} was [{group}] {name}");
        }
    }
}

#[test]
fn names_are_declared_once() {
    let mut names: Vec<_> = options::all().map(|spec| (spec.group, spec.name)).collect();
    let former = options::all().flat_map(|spec| spec.old_names.iter().copied());
    names.extend(former);
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn command_line_beats_environment_beats_files_beats_defaults() {
    let text = "[DEFAULT]\nlog_dir = /file\nlog_file = file\nhost = file\n";
    let folder = Folder::new("precedence", &[("a.conf", text)]);
    let mut sources = folder.sources();
    for (name, value) in [
        ("OS_DEFAULT__LOG_DIR", "/env"),
        ("OS_DEFAULT__LOG_FILE", "env"),
        ("OS_DATABASE__MAX_POOL_SIZE", "7"),
        ("os_default__host", "ignored"),
    ] {
        sources
            .environment
            .insert(name.to_owned(), value.to_owned());
    }
    sources.overrides.push(("log_dir".into(), "/cli".into()));
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.logging.log_dir, Some("/cli".into()));
    assert_eq!(config.logging.log_file, Some("env".into()));
    assert_eq!(config.service.host, "file");
    assert_eq!(config.database.max_pool_size, 7);
    assert_eq!(config.database.max_overflow, Some(50));
}

#[test]
fn later_files_win_and_multi_values_add_up() {
    let a = "[DEFAULT]\nhost = a\ndebug = true\n[oslo_messaging_notifications]\ndriver = log\n";
    let b = "[DEFAULT]\nhost = b\n[oslo_messaging_notifications]\ndriver = noop\ndriver = log\n";
    let folder = Folder::new("later", &[("a.conf", a), ("b.conf", b)]);
    let mut sources = folder.sources();
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.service.host, "b");
    assert!(config.logging.debug);
    assert_eq!(config.notifications.driver.0, ["log", "noop", "log"]);

    let name = "OS_OSLO_MESSAGING_NOTIFICATIONS__DRIVER".to_owned();
    sources.environment.insert(name, "messagingv2".to_owned());
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.notifications.driver.0, ["messagingv2"]);
}

#[test]
fn a_former_name_in_a_later_file_beats_todays_in_an_earlier_one() {
    let a = "[DEFAULT]\nlog_file = a\n";
    let b = "[DEFAULT]\nlogfile = b\n";
    let folder = Folder::new("former", &[("a.conf", a), ("b.conf", b)]);
    let config = Config::load(&folder.sources()).unwrap();
    assert_eq!(config.logging.log_file, Some("b".into()));
    let file = folder.0.join("b.conf");
    assert_eq!(
        config.warnings()[0].to_string(),
        format!(
            "[DEFAULT] logfile in {} is deprecated: use [DEFAULT] log_file",
            file.display()
        )
    );
}

#[test]
fn a_directory_is_read_in_order() {
    let folder = Folder::new(
        "directory",
        &[
            ("2.conf", "[DEFAULT]\nhost = two\n"),
            ("1.conf", "[DEFAULT]\nhost = one\ndebug = on\n"),
            (".3.conf", "[DEFAULT]\nhost = hidden\n"),
            ("4.txt", "no configuration"),
        ],
    );
    let mut sources = folder.sources();
    sources.paths = vec![ConfigPath::Directory(folder.0.clone())];
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.service.host, "two");
    assert!(config.logging.debug);
    let read = ["1.conf", "2.conf"].map(|name| folder.0.join(name));
    assert_eq!(config.files(), read);
}

#[test]
fn spellings_of_zed_are_accepted() {
    let text = "[DEFAULT]\nbackup_driver_status_check_interval = 120\n\
                rabbit_ha_queues = true\n\
                [oslo_messaging_rabbit]\nrabbit_quroum_max_memory_bytes = 9\n\
                rabbit_use_ssl = yes\nheartbeat_in_pthread = false\n";
    let changed = "[DEFAULT]\nwatch_log_file = true\n[database]\nmysql_enable_ndb = true\n";
    let config = load("zed-changed", changed).unwrap();
    let told: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    assert!(told[0].contains("watch_log_file"), "{told:?}");
    assert!(told[1].contains("mysql_enable_ndb"), "{told:?}");

    let config = load("zed", text).unwrap();
    assert_eq!(config.backup.backup_driver_stats_polling_interval, 120);
    assert!(config.rabbit.rabbit_ha_queues);
    assert_eq!(config.rabbit.rabbit_quorum_max_memory_bytes, 9);
    assert!(config.rabbit.ssl);
    assert_eq!(config.warnings().len(), 4);
}

#[test]
fn what_has_no_effect_is_told_where_it_is_changed() {
    let text = "[DEFAULT]\nuse_syslog = no\nlog_rotation_type = none\nperiodic_interval = 060\n\
                backup_metadata_version = 2\nlog_config_append =\n\
                [oslo_messaging_rabbit]\nkombu_reconnect_delay = 1\n\
                [oslo_messaging_notifications]\ndriver = noop\ndriver = messaging\n";
    assert_eq!(load("effect-default", text).unwrap().warnings(), []);

    let text = "[DEFAULT]\nperiodic_interval = 0\nlog_config = /nonexistent\n\
                backup_service_inithost_offload = false\nbackup_metadata_version = new\n\
                [oslo_messaging_notifications]\ndriver = routing\nretry = 3\n";
    let folder = Folder::new("effect", &[("a.conf", text)]);
    let mut sources = folder.sources();
    sources.overrides.push(("use_syslog".into(), "true".into()));
    let config = Config::load(&sources).unwrap();
    let told: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    let file = folder.0.join("a.conf").display().to_string();
    assert_eq!(told.len(), 8, "{told:#?}");
    for (place, told) in [
        "log_config in",
        &format!("backup_service_inithost_offload (in {file})"),
        &format!("backup_metadata_version (in {file})"),
        &format!("periodic_interval (in {file})"),
        &format!("log_config_append (in {file})"),
        "use_syslog (on the command line)",
        "retry",
        "driver: routing",
    ]
    .into_iter()
    .zip(&told)
    {
        assert!(told.contains(place), "{place}: {told}");
    }
}

#[test]
fn the_query_of_a_transport_url_overrides_its_own_options_only() {
    let text = "[DEFAULT]\ntransport_url = rabbit://u:p@h/?rabbit_quorum_queue=true&ssl=1\n\
                [oslo_messaging_notifications]\ntransport_url = rabbit://u:p@n/\n\
                [oslo_messaging_rabbit]\nrabbit_quorum_queue = false\n";
    let config = load("query", text).unwrap();
    assert!(config.rabbit.rabbit_quorum_queue && config.rabbit.ssl);
    assert!(!config.notification_rabbit.rabbit_quorum_queue);
    assert_eq!(config.notification_url().hosts[0].host, "n");

    let known = "[DEFAULT]\ntransport_url = rabbit://h/?rpc_conn_pool_size=9\n";
    assert!(load("known", known).is_ok());
    let unknown = "[DEFAULT]\ntransport_url = rabbit://h/?rabbit_quorum=1\n";
    let error = load("unknown", unknown).unwrap_err().to_string();
    assert!(error.contains("rabbit_quorum"), "{error}");
    let bad = "[DEFAULT]\ntransport_url = rabbit://h/?ssl=maybe\n";
    let error = load("bad", bad).unwrap_err().to_string();
    assert!(error.contains("in the query of transport_url"), "{error}");
}

/// The answers are those of librados 16.2.15 to python-rados, in `keyring` with `$cluster`.
#[test]
fn a_cluster_is_named_after_its_file() {
    for (file, name) in [
        ("ceph.conf", "ceph"),
        ("ceph-backup.conf", "ceph-backup"),
        ("x.y.conf", "x.y"),
        ("client..conf", "client."),
        ("a b.conf", "a b"),
        ("noext", "ceph"),
        ("odd.cfg", "ceph"),
        (".conf", "ceph"),
    ] {
        let text = format!("[DEFAULT]\nbackup_ceph_conf = /etc/ceph/{file}\n");
        let config = load("cluster", &text).unwrap();
        assert_eq!(config.ceph.cluster_name(), name, "{file}");
    }
}

#[test]
fn an_empty_notification_url_falls_back() {
    let text = "[DEFAULT]\ntransport_url = rabbit://main/?ssl=1\n\
                [oslo_messaging_notifications]\ntransport_url =\n";
    let config = load("fallback", text).unwrap();
    assert_eq!(config.notification_url().hosts[0].host, "main");
    assert!(config.notification_rabbit.ssl);
}

#[test]
fn kollas_file_is_read() {
    let text = include_str!("../../tests/fixtures/oslo_config/kolla.conf");
    let config = load("kolla", text).unwrap();
    assert_eq!(config.check(), []);
    assert_eq!(config.service.my_ip, "10.0.0.11");
    assert_eq!(config.backup.backup_driver, CEPH_DRIVER);
    assert_eq!(config.ceph.backup_ceph_user, "cinder-backup");
    assert_eq!(config.messaging.transport_url.hosts.len(), 3);
    assert_eq!(config.messaging.transport_url.virtual_host, "/");
    assert_eq!(config.notifications.driver.0, ["noop"]);
    assert!(config.rabbit.use_queue_manager && config.rabbit.rabbit_stream_fanout);
    assert_eq!(config.rabbit.rabbit_qos_prefetch_count, 50);
    assert_eq!(config.database.max_retries, -1);
    assert_eq!(config.database_url.tls.mode, TlsMode::Preferred);
    assert_eq!(config.logging.log_dir, Some("/var/log/kolla/cinder".into()));
}

#[test]
fn kollas_file_with_tls_is_read() {
    let text = include_str!("../../tests/fixtures/oslo_config/kolla-tls.conf");
    let config = load("kolla-tls", text).unwrap();
    assert_eq!(config.check(), []);
    let ca = Some(PathBuf::from("/etc/ssl/certs/ca-certificates.crt"));
    assert!(config.rabbit.ssl);
    assert_eq!(config.rabbit.ssl_ca_file, ca);
    assert_eq!(config.database_url.tls.mode, TlsMode::VerifyIdentity);
    assert_eq!(config.database_url.tls.ca, ca);
    assert_eq!(config.notifications.driver.0, ["messagingv2"]);
}

#[test]
fn nothing_secret_is_shown() {
    let text = "[DEFAULT]\ntransport_url = rabbit://u:hunter2@h/\n\
                [database]\nconnection = mysql://u:hunter2@h/db\n";
    let config = load("secret", text).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));

    let bad = "[database]\nconnection = mysql://u:hunter2@h:port/db\n";
    let error = load("bad-secret", bad).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}
