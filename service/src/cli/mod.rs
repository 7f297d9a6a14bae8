//! The operator's tool: what is asked of it, and how it tells what came of it.

mod bar;
mod status;
mod verify;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use api_compat::config::Config;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::core_dumps;
use crate::db::{self, Database};
use crate::settings::{self, ConfigFiles};
use crate::vault::Vault;
use bar::Bars;

/// How long what is interrupted may take to end in order: a cluster may not answer.
const IN_ORDER: Duration = Duration::from_secs(15);

/// Sees to the backups that cinder-backup keeps in Ceph.
///
/// Reads the cinder.conf of a cinder-backup worker, Python's or ours, and works on the database and the
/// cluster that it names.
#[derive(Debug, Parser)]
#[command(
    name = "cinderblock",
    version,
    arg_required_else_help = true,
    after_help = "Without --config-file, cinder.conf and cinder-backup.conf are searched in \
~/.cinder, ~, /etc/cinder and /etc.

Exit status: 0 when all went well, 1 when it failed, 2 when the command line cannot be understood, \
3 when some of it could not be done, 4 when a backup is damaged, 5 when it was interrupted."
)]
struct CommandLine {
    /// Which configuration files are read.
    #[command(flatten)]
    files: ConfigFiles,

    /// Say more; twice for debugging.
    #[arg(long, short, action = ArgAction::Count, global = true)]
    verbose: u8,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Status(status::Arguments),
    Verify(verify::Arguments),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What became of what was asked for; each has an exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
    Partly,
    Damaged,
    Interrupted,
}

impl Outcome {
    fn exit_status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Partly => 3,
            Self::Damaged => 4,
            Self::Interrupted => 5,
        }
    }
}

/// What every verb works with.
struct Tool {
    config: Config,
    database: Database,
    vault: Vault,
    bars: Bars,
    /// Cancelled when the user interrupts.
    cancel: CancellationToken,
}

/// Does what the process's arguments ask for.
pub fn run() -> ExitCode {
    core_dumps::disable();
    let matches = CommandLine::command().get_matches();
    let command_line = match CommandLine::from_arg_matches(&matches) {
        Ok(command_line) => command_line,
        Err(error) => error.exit(),
    };
    let paths = command_line.files.in_order(&matches);
    let bars = Bars::default();
    start_log(command_line.verbose, &bars);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let done = runtime.block_on(async {
        let config = settings::load(&paths, Vec::new())?;
        let cancel = CancellationToken::new();
        let interrupted = interrupted(cancel.clone())?;
        let working = async {
            let tool = Tool::new(config, bars, cancel).await?;
            match &command_line.verb {
                Verb::Status(arguments) => status::run(&tool, arguments).await,
                Verb::Verify(arguments) => verify::run(&tool, arguments).await,
            }
        };
        tokio::select! {
            done = working => done,
            () = interrupted => Ok(Outcome::Interrupted),
        }
    });
    // A thread that is blocked on a cluster that does not answer is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match done {
        Ok(outcome) => ExitCode::from(outcome.exit_status()),
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // Whoever reads the output has enough of it.
    let closed = error.downcast_ref::<io::Error>();
    if closed.is_none_or(|error| error.kind() != io::ErrorKind::BrokenPipe) {
        eprintln!("cinderblock: {error:#}");
    }
    ExitCode::from(Outcome::Failed.exit_status())
}

/// Warnings, and more if asked for, go to standard error.
fn start_log(verbose: u8, bars: &Bars) {
    let filter = match verbose {
        0 => "warn,cinderblock=warn",
        1 => "warn,cinderblock=info",
        _ => "info,cinderblock=debug",
    };
    let bars = bars.clone();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(move || bars.clone())
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .init();
}

impl Tool {
    async fn new(config: Config, bars: Bars, cancel: CancellationToken) -> anyhow::Result<Self> {
        let options = db::Options {
            // Somebody waits.
            start_tries: Some(0),
            ..settings::database(&config)
        };
        Ok(Self {
            database: Database::connect(&options).await?,
            vault: settings::vault(&config)?,
            config,
            bars,
            cancel,
        })
    }
}

/// Returns when the user does not want to wait any more: cancels what is under way at the first signal, and
/// gives it a moment to end in order, or until the second.
fn interrupted(cancel: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let (mut interrupt, mut terminate) = (
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
    );
    Ok(async move {
        let mut heard = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        heard().await;
        cancel.cancel();
        let _ = tokio::time::timeout(IN_ORDER, heard()).await;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_files_may_be_named_before_and_behind_the_verb() {
        CommandLine::command().debug_assert();
        for words in [
            "cinderblock --config-file=a --config-dir b verify --all",
            "cinderblock verify --all --config-file=a --config-dir b",
        ] {
            let matches = CommandLine::command().get_matches_from(words.split(' '));
            let parsed = CommandLine::from_arg_matches(&matches).expect("understood");
            let paths = parsed.files.in_order(&matches);
            assert_eq!(paths.len(), 2, "{words}: {paths:?}");
        }
    }
}
