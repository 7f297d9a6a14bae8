//! Which configuration files are read.

use std::path::PathBuf;

use api_compat::config::ConfigPath;
use clap::ArgMatches;

/// The options that name configuration files, as every program of OpenStack has them.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigFiles {
    /// Configuration file; may be given several times, later ones win.
    #[arg(long, value_name = "PATH", global = true)]
    pub config_file: Vec<PathBuf>,

    /// Directory whose *.conf files are read in the order of their names; may be given several
    /// times.
    #[arg(long, value_name = "DIR", global = true)]
    pub config_dir: Vec<PathBuf>,
}

impl ConfigFiles {
    /// Files and directories in the order in which they were given.
    pub fn in_order(&self, matches: &ArgMatches) -> Vec<ConfigPath> {
        let files = positions(matches, "config_file", &self.config_file, ConfigPath::File);
        let kind = ConfigPath::Directory;
        let directories = positions(matches, "config_dir", &self.config_dir, kind);
        let mut paths: Vec<_> = files.chain(directories).collect();
        paths.sort_by_key(|(position, _)| *position);
        paths.into_iter().map(|(_, path)| path).collect()
    }
}

/// What was given for an argument, each with its position on the command line.
fn positions(
    matches: &ArgMatches,
    argument: &str,
    values: &[PathBuf],
    kind: fn(PathBuf) -> ConfigPath,
) -> impl Iterator<Item = (usize, ConfigPath)> {
    let positions = matches.indices_of(argument).into_iter().flatten();
    positions.zip(values.iter().cloned().map(kind))
}
