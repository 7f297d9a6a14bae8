//! The operator's tool for backups in Ceph.

use std::process::ExitCode;

fn main() -> ExitCode {
    cinderblock::cli::run()
}
