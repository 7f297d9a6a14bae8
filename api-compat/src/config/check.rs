//! What a service cannot work with although every value is well formed.

use std::fmt;

use super::Config;
use super::options::backup::CEPH_DRIVER;
use crate::rpc;

/// AMQP has no room for more bytes.
const MAX_QUEUE_NAME: usize = 255;

/// An option that keeps the service from working.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Section of the option.
    pub group: &'static str,
    /// Name of the option.
    pub name: &'static str,
    /// What is wrong with its value.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[{}] {}: {}", self.group, self.name, self.text)
    }
}

impl Config {
    /// Everything that keeps a backup worker from working; empty if nothing does.
    #[must_use]
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.check_service(&mut problems);
        self.check_backups(&mut problems);
        self.check_database(&mut problems);
        for rabbit in [&self.rabbit, &self.notification_rabbit] {
            check_rabbit(rabbit, &mut problems);
        }
        problems
    }

    fn check_service(&self, problems: &mut Vec<Problem>) {
        let service = &self.service;
        if service.host.is_empty() {
            add(problems, "host", "must not be empty");
        }
        let longest = MAX_QUEUE_NAME - rpc::backup::TOPIC.len() - ".".len();
        if service.host.len() > longest {
            let text =
                format!("must not be longer than {longest} bytes: a queue is named after it");
            add(problems, "host", &text);
        }
        if service.report_interval == 0 || service.report_interval >= service.service_down_time {
            let text = format!(
                "must be above 0 and below service_down_time ({}): the service would count as down",
                service.service_down_time
            );
            add(problems, "report_interval", &text);
        }
    }

    fn check_backups(&self, problems: &mut Vec<Problem>) {
        let driver = &self.backup.backup_driver;
        if self.unset.backup_driver {
            // Nobody wrote Cinder's own default, which is another driver.
            let text = format!("{}: this service has only {CEPH_DRIVER}", self.not_set());
            add(problems, "backup_driver", &text);
        } else if driver != CEPH_DRIVER {
            let text = format!("is {driver}, but this service has only {CEPH_DRIVER}");
            add(problems, "backup_driver", &text);
        }
        let ceph = &self.ceph;
        for (name, empty) in [
            (
                "backup_ceph_conf",
                ceph.backup_ceph_conf.as_os_str().is_empty(),
            ),
            ("backup_ceph_user", ceph.backup_ceph_user.is_empty()),
            ("backup_ceph_pool", ceph.backup_ceph_pool.is_empty()),
        ] {
            if empty {
                add(problems, name, "must not be empty");
            }
        }
        if (ceph.backup_ceph_stripe_unit == 0) != (ceph.backup_ceph_stripe_count == 0) {
            let text = "needs backup_ceph_stripe_count: set both or neither";
            add(problems, "backup_ceph_stripe_unit", text);
        }
    }

    fn check_database(&self, problems: &mut Vec<Problem>) {
        // The default is a file that no cloud has: whoever wants SQLite says so.
        if self.unset.connection {
            problems.push(Problem {
                group: "database",
                name: "connection",
                text: format!("{}: it names Cinder's database", self.not_set()),
            });
        }
    }

    /// That an option is not set, and where a file that might set it was looked for if there is none.
    fn not_set(&self) -> String {
        let Some(([first, second], places)) = &self.unset.searched else {
            return "is not set".to_owned();
        };
        let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        let places = places.join(", ");
        format!("is not set (found neither {first} nor {second} in any of {places})")
    }
}

/// Combinations that oslo.messaging refuses when it declares a queue.
fn check_rabbit(rabbit: &super::Rabbit, problems: &mut Vec<Problem>) {
    let mut add = |name, text: &str| {
        let problem = Problem {
            group: "oslo_messaging_rabbit",
            name,
            text: text.to_owned(),
        };
        // Notifications usually share the options, and then the problems.
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    };
    let quorum = rabbit.rabbit_quorum_queue || rabbit.rabbit_transient_quorum_queue;
    if rabbit.rabbit_ha_queues && quorum {
        add("rabbit_ha_queues", "cannot be combined with quorum queues");
    }
    if rabbit.rabbit_stream_fanout && rabbit.rabbit_qos_prefetch_count == 0 {
        add(
            "rabbit_stream_fanout",
            "needs rabbit_qos_prefetch_count above 0",
        );
    }
    if rabbit.rabbit_stream_fanout && !rabbit.rabbit_transient_quorum_queue {
        add(
            "rabbit_stream_fanout",
            "needs rabbit_transient_quorum_queue",
        );
    }
}

fn add(problems: &mut Vec<Problem>, name: &'static str, text: &str) {
    problems.push(Problem {
        group: "DEFAULT",
        name,
        text: text.to_owned(),
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::config::tests::load;
    use crate::config::{Config, Machine, Sources};
    use crate::state::driver::{self, is_ours};

    const GOOD: &str = "\
[DEFAULT]
backup_driver = cinder.backup.drivers.ceph.CephBackupDriver
[database]
connection = mysql+pymysql://c:hunter2@db/cinder
";

    fn problems(name: &str, change: &str) -> Vec<String> {
        let config = load(name, &format!("{GOOD}{change}")).unwrap();
        config.check().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_usable_configuration_has_no_problems() {
        assert_eq!(problems("usable", ""), [""; 0]);
        let off = "[oslo_messaging_rabbit]\nssl = 1\nssl_enforce_hostname_verification = 0\n";
        assert_eq!(problems("any-name", off), [""; 0]);
    }

    #[test]
    fn other_drivers_are_refused() {
        for driver in ["nfs.NFSBackupDriver", "ceph.", "cep", "ceph.CephBackup"] {
            let driver = format!("[DEFAULT]\nbackup_driver = cinder.backup.drivers.{driver}\n");
            assert_eq!(problems("driver-other", &driver).len(), 1, "{driver}");
        }
    }

    #[test]
    fn the_drivers_module_stands_for_its_class() {
        let text = "[DEFAULT]\nbackup_driver = cinder.backup.drivers.ceph\n";
        let config = load("driver-module", &format!("{GOOD}{text}")).unwrap();
        assert_eq!(config.check(), []);
        let driver = config.backup.backup_driver;
        assert!(is_ours(&driver, Some(driver::CEPH)));
        assert_eq!(driver, driver::CEPH);
    }

    #[test]
    fn what_nobody_has_set_is_told_as_such() {
        let told = |config: &Config| -> Vec<String> {
            config.check().iter().map(ToString::to_string).collect()
        };
        let driver = "this service has only cinder.backup.drivers.ceph.CephBackupDriver";
        let config = load("driver-default", "[DEFAULT]\ndebug = true\n").unwrap();
        let expected = [
            format!("[DEFAULT] backup_driver: is not set: {driver}"),
            "[database] connection: is not set: it names Cinder's database".to_owned(),
        ];
        assert_eq!(told(&config), expected);
        for url in [
            "postgresql://u:hunter2@h/cinder",
            "sqlite:////var/lib/cinder/cinder.sqlite",
        ] {
            let connection = format!("[database]\nconnection = {url}\n");
            assert_eq!(problems("database", &connection), [""; 0], "{url}");
        }
    }

    #[test]
    fn where_files_were_looked_for_is_told_when_there_are_none() {
        let environment = BTreeMap::from([("HOME".to_owned(), "/nowhere/u".to_owned())]);
        let sources = Sources {
            project: "no-such-project".to_owned(),
            paths: Vec::new(),
            overrides: Vec::new(),
            environment,
            machine: Machine {
                hostname: "node1".to_owned(),
                address: "192.0.2.1".to_owned(),
                program: "no-such-program".to_owned(),
            },
        };
        let config = Config::load(&sources).unwrap();
        assert!(config.files().is_empty());
        let expected = "is not set (found neither no-such-project.conf nor no-such-program.conf in \
                        any of /nowhere/u/.no-such-project, /nowhere/u, /etc/no-such-project, /etc)";
        for problem in config.check() {
            assert!(problem.text.starts_with(expected), "{problem}");
        }
    }

    #[test]
    fn problems_are_told_together_and_once() {
        let change = "[DEFAULT]\nhost =\n[oslo_messaging_rabbit]\nrabbit_stream_fanout = 1\n";
        assert_eq!(
            problems("together", change),
            [
                "[DEFAULT] host: must not be empty",
                "[oslo_messaging_rabbit] rabbit_stream_fanout: \
                 needs rabbit_qos_prefetch_count above 0",
                "[oslo_messaging_rabbit] rabbit_stream_fanout: needs rabbit_transient_quorum_queue",
            ]
        );
    }

    #[test]
    fn what_a_worker_cannot_work_with_is_told() {
        let rabbit = "[oslo_messaging_rabbit]\n";
        for (number, (change, option)) in [
            (
                "[DEFAULT]\nbackup_ceph_stripe_unit = 65536\n",
                "backup_ceph_stripe_unit",
            ),
            (
                "[DEFAULT]\nbackup_ceph_stripe_count = 4\n",
                "backup_ceph_stripe_unit",
            ),
            ("[DEFAULT]\nreport_interval = 60\n", "report_interval"),
            ("[DEFAULT]\nreport_interval = 0\n", "report_interval"),
            ("[DEFAULT]\nhost =\n", "host"),
            (&format!("[DEFAULT]\nhost = {}\n", "h".repeat(242)), "host"),
            ("[DEFAULT]\nbackup_ceph_user =\n", "backup_ceph_user"),
            ("[DEFAULT]\nbackup_ceph_pool =\n", "backup_ceph_pool"),
            ("[DEFAULT]\nbackup_ceph_conf =\n", "backup_ceph_conf"),
            (
                &format!("{rabbit}rabbit_ha_queues = 1\nrabbit_quorum_queue = 1\n"),
                "rabbit_ha_queues",
            ),
            (
                &format!("{rabbit}rabbit_stream_fanout = 1\nrabbit_qos_prefetch_count = 9\n"),
                "rabbit_stream_fanout",
            ),
            (
                &format!("{rabbit}rabbit_stream_fanout = 1\nrabbit_transient_quorum_queue = 1\n"),
                "rabbit_stream_fanout",
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let problems = problems(&format!("problem-{number}"), change);
            assert_eq!(problems.len(), 1, "{change}: {problems:?}");
            assert!(
                problems[0].contains(&format!("] {option}:")),
                "{problems:?}"
            );
        }
    }
}
