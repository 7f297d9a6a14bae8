//! What is said of values that cannot be used.

use super::*;

#[test]
fn errors_say_where() {
    let folder = Folder::new(
        "where",
        &[("a.conf", "[DEFAULT]\nbackup_max_operations = -1\n")],
    );
    let mut sources = folder.sources();
    let error = Config::load(&sources).unwrap_err().to_string();
    let expected = format!(
        "[DEFAULT] backup_max_operations (in {}): \
         \"-1\" is not an integer that is 0 or more",
        folder.0.join("a.conf").display()
    );
    assert_eq!(error, expected);

    let (name, text) = ("OS_DEFAULT__BACKUP_MAX_OPERATIONS", "many");
    sources.environment.insert(name.to_owned(), text.to_owned());
    let error = Config::load(&sources).unwrap_err().to_string();
    assert!(
        error.contains(&format!("environment variable {name}")),
        "{error}"
    );

    sources
        .overrides
        .push(("backup_max_operations".into(), "all".into()));
    let error = Config::load(&sources).unwrap_err().to_string();
    assert!(error.contains("on the command line"), "{error}");
}

#[test]
fn what_refers_to_more_and_more_is_refused() {
    let options = |count: usize| {
        let options = (0..count).map(|n| format!("a{n} = $a{next}$a{next}\n", next = n + 1));
        let options: String = options.collect();
        format!("[DEFAULT]\nhost = $a0\n{options}a{count} =\n")
    };
    load("few-references", &options(8)).unwrap();
    let error = load("many-references", &options(16))
        .unwrap_err()
        .to_string();
    let told = "refers to more than 1000 values, with all that those refer to";
    assert!(
        error.starts_with("[DEFAULT] host ") && error.ends_with(told),
        "{error}"
    );
}

#[test]
fn everything_that_cannot_be_used_is_told_at_once() {
    let text = "[DEFAULT]\nbackup_max_operations = many\ndebug = perhaps\n\
                transport_url = rabbit://h/?ssl=maybe&sll=1\n\
                backup_driver_init_check_interval = -3\n\
                [oslo_messaging_rabbit]\nheartbeat_timeout_threshold = long\n\
                [database]\nmax_retries = few\n[cinderblock]\ntransfer_depth = 0\n";
    let error = load("at-once", text).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines[0], "8 options cannot be used:");
    for (option, line) in [
        "[DEFAULT] backup_max_operations",
        "[DEFAULT] backup_driver_init_check_interval",
        "[DEFAULT] transport_url: its query sets \"sll\"",
        "[oslo_messaging_rabbit] ssl (in the query of transport_url)",
        "[oslo_messaging_rabbit] heartbeat_timeout_threshold",
        "[database] max_retries",
        "[DEFAULT] debug",
        "[cinderblock] transfer_depth",
    ]
    .into_iter()
    .zip(&lines[1..])
    {
        assert!(line.trim_start().starts_with(option), "{option}: {line}");
    }
    assert_eq!(lines.len(), 9, "{error}");
    assert!(
        lines[2].ends_with("\"-3\" is not an integer that is 5 or more"),
        "{error}"
    );
}

#[test]
fn limits_are_enforced() {
    let text = "[DEFAULT]\nbackup_driver_stats_polling_interval = 9\n";
    let error = load("limits", text).unwrap_err().to_string();
    assert!(
        error.ends_with("should be greater than or equal to 10"),
        "{error}"
    );
    let text = "[oslo_messaging_rabbit]\nrabbit_login_method = GSSAPI\n";
    let error = load("choices", text).unwrap_err().to_string();
    assert!(error.contains("PLAIN, AMQPLAIN, EXTERNAL"), "{error}");
}
