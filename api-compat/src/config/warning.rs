//! What looks like a mistake and is none to oslo.config.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use super::database_url::DatabaseUrl;
use super::error::Origin;
use super::ini::Ini;
use super::options;
use super::options::ignored::is_anothers;
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
    /// An option that nobody reads: in a section of which every option is known, or with a name
    /// that is like one of the backup service's.
    UnknownOption {
        /// Where it is set.
        origin: Origin,
        /// Its section.
        group: &'static str,
        /// Its name.
        name: String,
        /// The name that is probably meant.
        meant: Option<&'static str>,
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
        /// Whether somebody may miss what it does for Python's worker.
        is_missed: bool,
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

impl Warning {
    /// Whether this is only for information: what was intended holds.
    #[must_use]
    pub fn is_harmless(&self) -> bool {
        matches!(
            self,
            Self::WithoutEffect {
                is_missed: false,
                ..
            }
        )
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deprecated { file, old, new } => {
                write!(out, "{old} in {} is deprecated: use {new}", file.display())
            }
            Self::UnknownOption {
                origin,
                group,
                name,
                meant,
            } => {
                write!(
                    out,
                    "[{group}] {name} ({origin}) is no known option and has no effect"
                )?;
                meant.map_or(Ok(()), |meant| write!(out, ": is {meant} meant?"))
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
                ..
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

/// The section that only this service reads: what nobody knows in it is a typing error.
const OWN: &str = "cinderblock";

/// What is suspect in a file, former names of options aside.
pub(super) fn suspects(file: &Ini) -> Vec<Warning> {
    let misspelt = file.sections.keys().filter_map(|name| {
        Some(Warning::IgnoredSection {
            file: file.path.clone(),
            name: name.clone(),
            meant: misspelt_section(name)?.to_owned(),
        })
    });
    let unknown = groups().into_iter().flat_map(|group| {
        let names = file.sections.get(group).into_iter().flat_map(|s| s.keys());
        let names = names.filter(move |name| !is_former(group, name));
        names.filter_map(move |name| unknown(group, name, Origin::File(file.path.clone())))
    });
    misspelt.chain(unknown).collect()
}

/// What is suspect in the environment.
pub(super) fn of_environment(
    environment: &BTreeMap<String, String>,
) -> impl Iterator<Item = Warning> {
    environment.keys().filter_map(|variable| {
        let (group, name) = variable.strip_prefix("OS_")?.split_once("__")?;
        let group = groups()
            .into_iter()
            .find(|known| known.to_uppercase() == group)?;
        let origin = Origin::Environment(variable.clone());
        unknown(group, &name.to_lowercase(), origin)
    })
}

/// The section that is probably meant by one that has no effect.
fn misspelt_section(name: &str) -> Option<&'static str> {
    let trimmed = name.trim();
    let spelt_otherwise = options::all()
        .map(|spec| spec.group)
        .find(|group| group.eq_ignore_ascii_case(trimmed) && *group != name);
    // Other sections may belong to other services, whatever their names are like.
    let like_ours = trimmed != OWN && strsim::osa_distance(trimmed, OWN) <= 2;
    spelt_otherwise.or_else(|| like_ours.then_some(OWN))
}

/// The sections with options of this service.
fn groups() -> BTreeSet<&'static str> {
    options::all().map(|spec| spec.group).collect()
}

/// Whether an option had this name once. Only files may still use it.
fn is_former(group: &'static str, name: &str) -> bool {
    options::all().any(|spec| spec.old_names.contains(&(group, name)))
}

fn unknown(group: &'static str, name: &str, origin: Origin) -> Option<Warning> {
    if options::find(group, name).is_some() || is_anothers(group, name) {
        return None;
    }
    let word = first_word(name);
    let plain = word.to_lowercase().replace('-', "_");
    let nearest = options::all()
        .filter(|spec| spec.group == group)
        .map(|spec| (strsim::osa_distance(&plain, spec.name), spec.name))
        .min();
    let meant = nearest.filter(|(distance, meant)| *distance <= 3 && distance * 3 < meant.len());
    // All of Cinder's services and drivers have options in this section.
    let like_ours = plain.starts_with("backup_") || meant.is_some();
    (group != "DEFAULT" || like_ours).then(|| Warning::UnknownOption {
        origin,
        group,
        name: match word == name {
            true => name.to_owned(),
            false => format!("{word} …"),
        },
        meant: meant.map(|(_, name)| name),
    })
}

/// A line in which `=` was forgotten is a name up to the next one, which may be the end of a password.
fn first_word(name: &str) -> &str {
    let is_foreign = |c: char| !c.is_alphanumeric() && !"_-.".contains(c);
    name.split(is_foreign).next().unwrap_or_default()
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
        !["messagingv2", "messaging", "log", "noop", ""].contains(&driver)
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
            Warning::UnknownOption { name, meant, .. } => match meant {
                Some(meant) => format!("{name} → {meant}"),
                None => name,
            },
            Warning::IgnoredSection { name, meant, .. } => format!("{name} → {meant}"),
            other => panic!("{other}"),
        });
        names.collect()
    }

    #[test]
    fn typing_errors_in_names_are_noticed() {
        let text = "[DEFAULT]\nbackup_ceph_pol = a\nBackup_Driver = b\nbackup-driver = c\n\
                    backup_driver = d\nbackup_workers = 1\nbackup_swift_url = e\n\
                    backup_driver_status_check_interval = 60\nother = f\n[x]\nbackup_y = 1\n\
                    [CinderBlock]\ntransfer_depth = 3\ntransfer_dept = 3\nscan_diffs = 1\n";
        assert_eq!(
            names(text),
            [
                "Backup_Driver → backup_driver",
                "backup-driver → backup_driver",
                "backup_ceph_pol → backup_ceph_pool",
                "scan_diffs",
                "transfer_dept → transfer_depth",
            ]
        );
    }

    #[test]
    fn what_may_be_a_value_is_not_told_as_a_name() {
        let text = "[keystone_authtoken]\npassword c2VjcmV0= \n[DEFAULT]\ntransport_url/x=y\n";
        let told = ["transport_url … → transport_url", "password … → password"];
        assert_eq!(names(text), told);
    }

    #[test]
    fn typing_errors_in_the_names_of_variables_are_noticed() {
        let names = [
            "OS_CINDERBLOCK__TRANSFER_DEPTH",
            "OS_CINDERBLOCK__TRANSFER_DEPHT",
            "OS_DATABASE__MAX_RETRY",
            "OS_DEFAULT__LOG_FIL",
            "OS_DEFAULT__X",
            "OS_NOVA__X",
            "OS_AUTH_URL",
        ];
        let environment = names.map(|name| (name.to_owned(), "3".to_owned())).into();
        let told: Vec<String> = of_environment(&environment)
            .map(|warning| warning.to_string())
            .collect();
        assert_eq!(
            told,
            [
                "[cinderblock] transfer_depht (environment variable OS_CINDERBLOCK__TRANSFER_DEPHT) \
                 is no known option and has no effect: is transfer_depth meant?",
                "[database] max_retry (environment variable OS_DATABASE__MAX_RETRY) \
                 is no known option and has no effect: is max_retries meant?",
                "[DEFAULT] log_fil (environment variable OS_DEFAULT__LOG_FIL) \
                 is no known option and has no effect: is log_file meant?",
            ]
        );
    }

    #[test]
    fn sections_without_effect_are_noticed() {
        let text = "[default]\n[ database ]\n[DATABASE]\n[nova]\n[DEFAULT]\n[cinderblok]\n\
                    [Cinderblock]\n[cinder]\n";
        assert_eq!(
            names(text),
            [
                " database  → database",
                "cinderblok → cinderblock",
                "default → DEFAULT"
            ]
        );
    }
}
