//! Which files are read, in which order (`oslo_config/cfg.py`, `_parse_config_files`).
//!
//! The decision is a plain function of what exists; reading stands behind it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::ini::Ini;

/// A file or directory named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigPath {
    /// `--config-file`
    File(PathBuf),
    /// `--config-dir`
    Directory(PathBuf),
}

/// What is read, in order: `arguments` in their order, after the default files unless a file was
/// named, and after the default directories unless a directory was named.
pub(super) fn plan(
    project: &str,
    program: &str,
    arguments: &[ConfigPath],
    environment: &BTreeMap<String, String>,
    exists: impl Fn(&Path) -> bool,
) -> Vec<ConfigPath> {
    let home = environment.get("HOME").map(PathBuf::from);
    let folders = search_path(project, home.as_deref(), environment);
    let first = |name: String| folders.iter().map(|f| f.join(&name)).find(|p| exists(p));
    let defaults = |extension: &str| {
        [project, program]
            .map(|name| first(format!("{name}{extension}")))
            .into_iter()
            .flatten()
    };

    let mut plan = Vec::new();
    if !arguments.iter().any(|a| matches!(a, ConfigPath::File(_))) {
        plan.extend(defaults(".conf").map(ConfigPath::File));
    }
    if !arguments
        .iter()
        .any(|a| matches!(a, ConfigPath::Directory(_)))
    {
        plan.extend(defaults(".conf.d").map(ConfigPath::Directory));
    }
    plan.extend(arguments.iter().map(|argument| match argument {
        ConfigPath::File(path) => ConfigPath::File(in_home(path, home.as_deref())),
        ConfigPath::Directory(path) => ConfigPath::Directory(in_home(path, home.as_deref())),
    }));
    plan
}

/// Where default files are looked for, in order.
pub(super) fn places(project: &str, environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let home = environment.get("HOME").map(PathBuf::from);
    search_path(project, home.as_deref(), environment)
}

fn search_path(
    project: &str,
    home: Option<&Path>,
    environment: &BTreeMap<String, String>,
) -> Vec<PathBuf> {
    let snap = |name: &str| {
        let folder = environment.get(name).filter(|folder| !folder.is_empty());
        folder.map(|folder| Path::new(folder).join("etc").join(project))
    };
    [
        home.map(|home| home.join(format!(".{project}"))),
        home.map(Path::to_owned),
        Some(Path::new("/etc").join(project)),
        Some(PathBuf::from("/etc")),
        snap("SNAP_COMMON"),
        snap("SNAP"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn in_home(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// The files of a directory that count, in order: what a shell's `*.conf` gives.
fn conf_files(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.ends_with(".conf") && !name.starts_with('.'))
    });
    paths.sort();
    paths
}

/// Reads and parses what is planned.
///
/// # Errors
/// Files and directories that cannot be found, opened or parsed. Every missing file is named.
pub(super) fn read(plan: &[ConfigPath]) -> Result<Vec<Ini>, ConfigError> {
    let mut files = Vec::new();
    for step in plan {
        match step {
            ConfigPath::File(path) => files.push(path.clone()),
            ConfigPath::Directory(path) => files.extend(conf_files(entries(path)?)),
        }
    }

    let mut parsed = Vec::new();
    let mut missing = Vec::new();
    let mut denied = Vec::new();
    for path in files {
        match std::fs::read(&path) {
            Ok(bytes) => {
                let text =
                    String::from_utf8(bytes).map_err(|_| ConfigError::NotUtf8(path.clone()))?;
                parsed.push(Ini::parse(&path, &text)?);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => missing.push(path),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => denied.push(path),
            Err(error) => return Err(ConfigError::Unreadable { path, error }),
        }
    }
    if !missing.is_empty() {
        return Err(ConfigError::FilesNotFound(missing));
    }
    if !denied.is_empty() {
        return Err(ConfigError::PermissionDenied(denied));
    }
    Ok(parsed)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let paths = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    paths.map_err(|error| match error.kind() {
        ErrorKind::NotFound => ConfigError::DirectoryNotFound(folder.to_owned()),
        _ => ConfigError::Unreadable {
            path: folder.to_owned(),
            error,
        },
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        arguments: Vec<String>,
        existing: Vec<PathBuf>,
        read: Vec<PathBuf>,
    }

    fn arguments(words: &[String]) -> Vec<ConfigPath> {
        let joined = words.join("=");
        let words = joined.split("--config-").filter(|word| !word.is_empty());
        words
            .map(|word| match word.trim_end_matches('=').split_once('=') {
                Some(("file", path)) => ConfigPath::File(path.into()),
                Some(("dir", path)) => ConfigPath::Directory(path.into()),
                _ => panic!("{word}"),
            })
            .collect()
    }

    #[test]
    fn reads_the_files_that_the_real_library_reads() {
        let cases = include_str!("../../tests/fixtures/oslo_config/discovery.json");
        let cases: Vec<Case> = serde_json::from_str(cases).unwrap();
        let environment = [
            ("HOME", "/home/u"),
            ("SNAP", "/snap/c/1"),
            ("SNAP_COMMON", "/var/snap/c"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        for case in cases {
            let steps = plan(
                "cinder",
                "cinder-backup",
                &arguments(&case.arguments),
                &environment,
                |path| case.existing.iter().any(|existing| existing == path),
            );
            let read: Vec<PathBuf> = steps
                .into_iter()
                .flat_map(|step| match step {
                    ConfigPath::File(path) => vec![path],
                    ConfigPath::Directory(folder) => {
                        let inside = |path: &&PathBuf| path.parent() == Some(&folder);
                        conf_files(case.existing.iter().filter(inside).cloned().collect())
                    }
                })
                .collect();
            assert_eq!(read, case.read, "{:?} {:?}", case.arguments, case.existing);
        }
    }

    #[test]
    fn what_was_asked_for_and_is_missing_is_an_error() {
        let file = |path: &str| ConfigPath::File(path.into());
        let error = read(&[file("/nowhere/a.conf"), file("/nowhere/b.conf")]);
        assert_eq!(
            error.err().unwrap().to_string(),
            "Failed to find some config files: /nowhere/a.conf,/nowhere/b.conf"
        );
        let error = read(&[ConfigPath::Directory("/nowhere".into())]);
        assert_eq!(
            error.err().unwrap().to_string(),
            "Failed to read config file directory: /nowhere"
        );
        // The folder of the tests; a chain of sources would tell the reason twice.
        let error = read(&[file(env!("CARGO_MANIFEST_DIR"))]).err().unwrap();
        assert!(error.to_string().contains("Is a directory"), "{error}");
        assert!(std::error::Error::source(&error).is_none());
    }

    #[test]
    fn a_home_is_not_needed() {
        let environment = BTreeMap::new();
        let steps = plan("cinder", "p", &[], &environment, |_| true);
        assert_eq!(steps[0], ConfigPath::File("/etc/cinder/cinder.conf".into()));
    }
}
