//! OpenStack block storage backup service for Ceph RBD.

use std::process::ExitCode;

use cinderblock::worker::{self, command_line::CommandLine};

/// Also for librados and librbd. It gives back what a night of backups leaves, which the C library's keeps.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match worker::run(&CommandLine::from_args()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A log in a file has it too, unless the file is what could not be opened.
            eprintln!("cinder-backup: {error:#}");
            ExitCode::FAILURE
        }
    }
}
