//! What operators write. It is theirs, but a slip must end in words that tell where, and no secret in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use api_compat::config::ini::Ini;
use api_compat::config::substitute::substitute;
use api_compat::config::value::{Limits, OptionType};
use api_compat::config::{
    Config, ConfigPath, DatabaseUrl, LogLevels, Machine, Sources, TransportUrl,
};
use cinderblock_fuzz::{assert_short, in_proportion, run, run_within};
use secrecy::ExposeSecret;

const SECRET: &str = "cinderblock-planted-secret";

#[test]
fn ini_files() {
    run("ini_files", |input| {
        let text = String::from_utf8_lossy(input);
        match Ini::parse(Path::new("a.conf"), &text) {
            Ok(file) => {
                for (section, options) in &file.sections {
                    assert!(!section.is_empty() && !options.keys().any(String::is_empty));
                    let values: usize = options.values().flatten().map(String::len).sum();
                    assert!(values <= text.len());
                }
            }
            Err(error) => assert_short(&error),
        }
    });
}

/// A whole configuration, with passwords in it.
#[test]
fn configurations() {
    // The registry's own texts, and the merged layers.
    run_within(
        "configurations",
        |length| in_proportion(length) + (16 << 20),
        |input| {
            let path =
                std::env::temp_dir().join(format!("cinderblock-fuzz-{}.conf", std::process::id()));
            let planted = format!(
                "\n[database]\nconnection = mysql://u:{SECRET}@h/cinder\n[oslo_messaging_rabbit]\n\
             [keystone_authtoken]\npassword = {SECRET}\n"
            );
            fs::write(&path, [input, planted.as_bytes()].concat()).expect("a file can be written");
            let sources = Sources {
                project: "cinder".to_owned(),
                paths: vec![ConfigPath::File(path.clone())],
                overrides: Vec::new(),
                environment: BTreeMap::new(),
                machine: Machine {
                    hostname: "h".to_owned(),
                    address: "192.0.2.1".to_owned(),
                    program: "cinder-backup".to_owned(),
                },
            };
            let loaded = Config::load(&sources);
            fs::remove_file(&path).expect("it was written");
            match loaded {
                Ok(config) => {
                    let shown = format!("{config:?}");
                    assert!(!shown.contains(SECRET), "{shown}");
                    for warning in config.warnings() {
                        assert!(!warning.to_string().contains(SECRET), "{warning}");
                    }
                }
                Err(error) => assert!(!error.to_string().contains(SECRET), "{error}"),
            }
        },
    );
}

#[test]
fn references() {
    run("references", |input| {
        let text = String::from_utf8_lossy(input);
        let plain = substitute(&text, |_| Ok::<_, ()>(String::new())).expect("nothing fails");
        assert!(plain.len() <= text.len());
        let mut asked = 0;
        let failed = substitute(&text, |name| {
            asked += 1;
            assert!(!name.is_empty());
            Err::<String, _>(())
        });
        assert_eq!(failed.is_err(), asked == 1);
    });
}

#[test]
fn transport_urls() {
    run("transport_urls", |input| {
        let text = String::from_utf8_lossy(input);
        match TransportUrl::parse(&text) {
            Ok(url) => {
                assert!(!url.hosts.is_empty() && !url.virtual_host.is_empty());
                for host in &url.hosts {
                    assert!(host.port != 0 && !host.host.is_empty() && !host.user.is_empty());
                    assert_is_hidden(&text, &format!("{host:?}"), host.password.expose_secret());
                }
            }
            Err(error) => assert_short(&error),
        }
    });
}

#[test]
fn database_urls() {
    run("database_urls", |input| {
        let text = String::from_utf8_lossy(input);
        // The first line is the URL, the second one parameters, the third one a mode of libpq's.
        let mut lines = text.splitn(3, '\n');
        let (url, parameters) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
        let mode = lines
            .next()
            .map(|mode| ("PGSSLMODE".to_owned(), mode.to_owned()));
        let environment: BTreeMap<String, String> = mode.into_iter().collect();
        match DatabaseUrl::parse(url, parameters, &environment) {
            Ok(url) => {
                if let Some(password) = &url.password {
                    assert_is_hidden(&text, &format!("{url:?}"), password.expose_secret());
                }
                assert!(!url.unknown.iter().any(|name| name.starts_with("ssl")));
            }
            Err(error) => assert_short(&error),
        }
    });
}

/// That the planted secret is not shown, where it stands in the password and nowhere else.
fn assert_is_hidden(text: &str, shown: &str, secret: &str) {
    if secret.contains(SECRET) && text.matches(SECRET).count() == 1 {
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

#[test]
fn log_levels() {
    run("log_levels", |input| {
        let text = String::from_utf8_lossy(input).into_owned();
        match LogLevels::parse(std::slice::from_ref(&text), Limits::default()) {
            Ok(LogLevels(levels)) => {
                assert!(levels.len() <= text.split(',').count());
                assert!(
                    levels
                        .iter()
                        .all(|(logger, _)| text.contains(logger.as_str()))
                );
            }
            Err(reason) => assert!(reason.to_string().len() < 100 + 12 * text.len()),
        }
    });
}
