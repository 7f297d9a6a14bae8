//! What looks like a mistake and is none to oslo.config.

use std::fmt;
use std::path::PathBuf;

use super::database_url::DatabaseUrl;
use super::error::Origin;
use super::ini::Ini;
use super::options;
use super::options::ignored::is_other_backup_option;
use super::transport_url::TransportUrl;
use super::value::Multi;

/// Something that works, but perhaps not as intended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A former name of an option.
    Deprecated {
        /// The file that uses it.
        file: PathBuf,
        /// Section and name there.
        old: String,
        /// Section and name today.
        new: String,
    },
    /// An option of `[DEFAULT]` that looks like one of the backup service's and is none.
    UnknownBackupOption {
        /// The file that sets it.
        file: PathBuf,
        /// Its name.
        name: String,
    },
    /// A section that nobody reads, because only another spelling of its name is known.
    IgnoredSection {
        /// The file that has it.
        file: PathBuf,
        /// Its name.
        name: String,
        /// The name that is probably meant.
        meant: String,
    },
    /// An option that has no effect here is set to something else than its default.
    WithoutEffect {
        /// Section and name.
        option: String,
        /// Where it is set.
        origin: Origin,
        /// What counts instead, as a sentence.
        instead: String,
    },
    /// A driver of notifications that sends nothing.
    SilentNotifications(String),
    /// Some brokers of a transport URL come with user and password, others without.
    MixedCredentials,
    /// A name in the database URL's query without effect.
    IgnoredDatabaseParameter(String),
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deprecated { file, old, new } => {
                write!(out, "{old} in {} is deprecated: use {new}", file.display())
            }
            Self::UnknownBackupOption { file, name } => {
                write!(
                    out,
                    "[DEFAULT] {name} in {} is no known option and has no effect",
                    file.display()
                )
            }
            Self::IgnoredSection { file, name, meant } => {
                write!(
                    out,
                    "section [{name}] in {} has no effect: write [{meant}]",
                    file.display()
                )
            }
            Self::WithoutEffect {
                option,
                origin,
                instead,
            } => write!(out, "{option} ({origin}) has no effect here. {instead}"),
            Self::SilentNotifications(driver) => write!(
                out,
                "[oslo_messaging_notifications] driver: {driver} sends nothing here"
            ),
            Self::MixedCredentials => out.write_str(
                "transport_url names user and password for some hosts only: the others are \
                 logged into as guest",
            ),
            Self::IgnoredDatabaseParameter(name) => {
                write!(
                    out,
                    "[database] connection: {name} in the query has no effect"
                )
            }
        }
    }
}

/// What is suspect in a file, former names of options aside.
pub(super) fn suspects(file: &Ini) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for name in file.sections.keys() {
        if let Some(meant) = misspelt_section(name) {
            warnings.push(Warning::IgnoredSection {
                file: file.path.clone(),
                name: name.clone(),
                meant: meant.to_owned(),
            });
        }
    }
    for name in file
        .sections
        .get("DEFAULT")
        .into_iter()
        .flat_map(|s| s.keys())
    {
        if is_unknown_backup_option(name) {
            warnings.push(Warning::UnknownBackupOption {
                file: file.path.clone(),
                name: name.clone(),
            });
        }
    }
    warnings
}

/// The section that is probably meant by one that has no effect.
fn misspelt_section(name: &str) -> Option<&'static str> {
    let trimmed = name.trim();
    options::all()
        .map(|spec| spec.group)
        .find(|group| group.eq_ignore_ascii_case(trimmed) && *group != name)
}

fn is_unknown_backup_option(name: &str) -> bool {
    let known = |spec: &super::registry::OptionSpec| {
        spec.group == "DEFAULT" && spec.name == name || spec.old_names.contains(&("DEFAULT", name))
    };
    let looks_like_one = name.to_lowercase().replace('-', "_").starts_with("backup_");
    looks_like_one && !is_other_backup_option(name) && !options::all().any(known)
}

/// What is suspect in URLs.
pub(super) fn of_urls<'a>(
    brokers: impl Iterator<Item = &'a TransportUrl>,
    database: &DatabaseUrl,
) -> Vec<Warning> {
    let mixed = brokers.filter(|url| url.mixed_credentials);
    let mixed = mixed.map(|_| Warning::MixedCredentials);
    let unknown = database.unknown.iter().cloned();
    mixed
        .chain(unknown.map(Warning::IgnoredDatabaseParameter))
        .collect()
}

/// The drivers of notifications that Python's worker sends with and this one does not.
pub(super) fn of_drivers(drivers: &Multi) -> impl Iterator<Item = Warning> {
    let silent = |driver: &&String| {
        let driver = driver.trim();
        !["messagingv2", "messaging", "noop", ""].contains(&driver)
    };
    let silent = drivers.0.iter().filter(silent).cloned();
    silent.map(Warning::SilentNotifications)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn names(text: &str) -> Vec<String> {
        let file = Ini::parse(Path::new("x"), text).unwrap();
        let names = suspects(&file).into_iter().map(|warning| match warning {
            Warning::UnknownBackupOption { name, .. } => name,
            Warning::IgnoredSection { name, meant, .. } => format!("{name} → {meant}"),
            other => panic!("{other}"),
        });
        names.collect()
    }

    #[test]
    fn typing_errors_in_names_are_noticed() {
        let text = "[DEFAULT]\nbackup_ceph_pol = a\nBackup_Driver = b\nbackup-driver = c\n\
                    backup_driver = d\nbackup_workers = 1\nbackup_swift_url = e\n\
                    backup_driver_status_check_interval = 60\nother = f\n[x]\nbackup_y = 1\n";
        assert_eq!(
            names(text),
            ["Backup_Driver", "backup-driver", "backup_ceph_pol"]
        );
    }

    #[test]
    fn sections_without_effect_are_noticed() {
        let text = "[default]\n[ database ]\n[DATABASE]\n[nova]\n[DEFAULT]\n";
        assert_eq!(names(text), [" database  → database", "default → DEFAULT"]);
    }
}
