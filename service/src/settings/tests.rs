use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use api_compat::config::options;

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
            program: TOPIC.to_owned(),
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
    let text = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
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
