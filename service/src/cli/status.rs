//! `cinderblock status`.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use api_compat::ids::{BackupId, VolumeId};
use api_compat::objects::Backup;
use api_compat::state::{BackupStatus, driver};
use clap::Args;
use futures_util::{StreamExt, stream};
use indicatif::{BinaryBytes, HumanDuration, ProgressBar};
use serde::Serialize;

use super::{Outcome, Output, Tool};
use crate::vault::{Report, Work};

/// How often a watched operation is looked at. Workers tell how far they are every five seconds.
const LOOK: Duration = Duration::from_secs(2);

/// How many backups are asked about at once.
const AT_ONCE: usize = 16;

/// Show what is under way on all workers, and how far it is.
///
/// Every backup that is being made, restored or deleted is listed, with what its worker is at. Where no
/// worker is shown, the request still waits in a queue, for the scheduler or for cinder-volume, or a worker
/// of Python's has it, which tells nobody.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cinderblock status
  cinderblock status --watch 246c011b-8fab-4538-90c2-f0ded6b69811
  cinderblock status --output json")]
pub struct Arguments {
    /// Ids of backups; without any, all that something is done to.
    #[arg(value_name = "BACKUP")]
    backups: Vec<BackupId>,

    /// Show bars until nothing is under way any more.
    #[arg(long, short, conflicts_with = "output")]
    watch: bool,

    /// How to print it.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// One backup.
#[derive(Debug, Serialize)]
struct Line {
    backup: BackupId,
    volume: VolumeId,
    /// As Cinder's API shows it.
    status: Option<BackupStatus>,
    host: Option<String>,
    worker: Option<Seen>,
    #[serde(flatten)]
    report: Option<Report>,
    error: Option<String>,
}

/// What is seen of the worker that is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Seen {
    Alive,
    /// A worker with its `host` goes on with it when it starts.
    Dead,
}

impl Line {
    fn new(row: Backup, work: anyhow::Result<Option<Work>>) -> Self {
        let (work, error) = match work {
            Ok(work) => (work, None),
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        Self {
            backup: row.id,
            volume: row.volume_id,
            status: row.status,
            host: row.host,
            worker: work.as_ref().map(|work| match work.lives {
                true => Seen::Alive,
                false => Seen::Dead,
            }),
            report: work.and_then(|work| work.report),
            error,
        }
    }

    fn is_under_way(&self) -> bool {
        self.status
            .is_some_and(|status| BackupStatus::UNDER_WAY.contains(&status))
    }

    /// What is done about it, in a word.
    fn at(&self) -> &str {
        match (self.worker, &self.report) {
            (None, _) => "-",
            (Some(Seen::Dead), _) => "worker is dead",
            (Some(Seen::Alive), Some(report)) => &report.phase,
            (Some(Seen::Alive), None) => "preparing",
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| BinaryBytes(bytes).to_string());
        let report = self.report.as_ref();
        let column = |column: Option<String>| column.unwrap_or_else(|| "-".to_owned());
        writeln!(
            out,
            "{:<36}  {:<9}  {:<24}  {:<26}  {:>11}  {:>11}  {:>13}  {:>10}",
            self.backup.to_string(),
            column(self.status.map(|status| status.to_string())),
            column(self.host.clone()),
            self.at(),
            column(report.and_then(|report| bytes(report.bytes_done))),
            column(report.and_then(|report| bytes(report.bytes_planned))),
            column(
                report
                    .and_then(|it| bytes(it.bytes_per_second))
                    .map(|rate| rate + "/s")
            ),
            column(report.and_then(|report| report.seconds_left).map(left)),
        )?;
        match &self.error {
            Some(error) => writeln!(out, "  {error}"),
            None => Ok(()),
        }
    }
}

fn left(seconds: u64) -> String {
    format!("{:#}", HumanDuration(Duration::from_secs(seconds)))
}

/// Shows what is asked for.
pub async fn run(tool: &Tool, arguments: &Arguments) -> anyhow::Result<Outcome> {
    if arguments.watch {
        return watch(tool, &arguments.backups).await;
    }
    let (lines, missing) = look(tool, &arguments.backups).await?;
    let out = &mut io::stdout();
    match arguments.output {
        Output::Table => {
            let [done, planned, rate, left] = ["DONE", "PLANNED", "RATE", "LEFT"];
            writeln!(
                out,
                "{:<36}  {:<9}  {:<24}  {:<26}  {done:>11}  {planned:>11}  {rate:>13}  {left:>10}",
                "BACKUP", "STATUS", "HOST", "AT"
            )?;
            for line in &lines {
                line.write(out)?;
            }
        }
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, &lines).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    for backup in &missing {
        eprintln!("cinderblock: there is no backup {backup}");
    }
    let failed = missing.len() + lines.iter().filter(|line| line.error.is_some()).count();
    Ok(match failed {
        0 => Outcome::Done,
        failed if failed == lines.len() + missing.len() => Outcome::Failed,
        _ => Outcome::Partly,
    })
}

/// What is seen of the backups that are named, or of all that are under way; and those that do not exist.
async fn look(tool: &Tool, named: &[BackupId]) -> anyhow::Result<(Vec<Line>, Vec<BackupId>)> {
    let (mut rows, mut missing) = (Vec::new(), Vec::new());
    if named.is_empty() {
        rows = tool.database.backups_under_way().await?;
    }
    for backup in named {
        match tool.database.backup(*backup).await? {
            Some(row) => rows.push(row),
            None => missing.push(*backup),
        }
    }
    let ours = &tool.config.backup.backup_driver;
    let lines = stream::iter(rows).map(async |row| {
        let work = match driver::is_ours(ours, row.service.as_deref()) {
            true => tool.vault.work(row.id).await.map_err(anyhow::Error::from),
            false => Ok(None),
        };
        Line::new(row, work)
    });
    Ok((lines.buffered(AT_ONCE).collect().await, missing))
}

/// Shows bars until nothing is under way any more, or the user has seen enough.
async fn watch(tool: &Tool, named: &[BackupId]) -> anyhow::Result<Outcome> {
    let mut bars: HashMap<BackupId, ProgressBar> = HashMap::new();
    loop {
        let (lines, missing) = look(tool, named).await?;
        let under_way: Vec<_> = lines.iter().filter(|line| line.is_under_way()).collect();
        bars.retain(|backup, bar| {
            let stays = under_way.iter().any(|line| line.backup == *backup);
            if !stays {
                tool.bars.remove(bar);
            }
            stays
        });
        for line in &under_way {
            let bar = bars.entry(line.backup).or_insert_with(|| {
                let status = line.status.map(|status| status.to_string());
                let name = format!("{} {}", line.backup, status.unwrap_or_default());
                tool.bars.add_told(name)
            });
            let report = line.report.as_ref();
            bar.set_length(report.and_then(|it| it.bytes_planned).unwrap_or_default());
            bar.set_position(report.and_then(|it| it.bytes_done).unwrap_or_default());
            let rate = report.and_then(|it| it.bytes_per_second);
            let rate = rate.map(|rate| format!("{}/s", BinaryBytes(rate)));
            let left = report.and_then(|it| it.seconds_left).map(left);
            let told = [Some(line.at().to_owned()), rate, left];
            bar.set_message(told.into_iter().flatten().collect::<Vec<_>>().join(", "));
        }
        if under_way.is_empty() {
            return match missing.is_empty() {
                true => Ok(Outcome::Done),
                false => Err(anyhow::anyhow!("there is no backup {}", missing[0])),
            };
        }
        tokio::select! {
            () = tool.cancel.cancelled() => return Ok(Outcome::Interrupted),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_everything_fits_its_column() {
        assert_eq!(left(59), "59s");
        assert!(left(u64::MAX / 2).len() <= 24);
    }
}
