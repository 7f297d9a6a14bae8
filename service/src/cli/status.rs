//! `cinderblock status`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::bail;
use api_compat::ids::{BackupId, VolumeId};
use api_compat::objects::Backup;
use api_compat::state::{BackupStatus, driver};
use chrono::Utc;
use clap::Args;
use futures_util::{StreamExt, stream};
use indicatif::{BinaryBytes, HumanDuration, ProgressBar};
use serde::Serialize;

use super::{Outcome, Output, Tool};
use crate::vault::{Report, Work};

/// How often a watched operation is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// How many backups are asked about at once.
const AT_ONCE: usize = 16;

/// How long the cluster is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Show what is under way on all workers, and how far it is.
///
/// Every backup that is being made, restored or deleted is listed, with what its worker is at. Where no
/// worker is shown, the request still waits in a queue or for the scheduler, or a worker of Python's has it,
/// or one that keeps its backups in another pool or cluster than the configuration names.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cinderblock status
  cinderblock status --watch 246c011b-8fab-4538-90c2-f0ded6b69811
  cinderblock status --output json")]
pub struct Arguments {
    /// Ids of backups; without any, all that something is done to.
    #[arg(value_name = "BACKUP")]
    backups: Vec<BackupId>,

    /// Show bars until nothing is under way any more, and what became of each backup. The exit status is
    /// 1 if all of them failed, and 3 if some did.
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
            report: work.and_then(|work| work.current(Utc::now())),
            error,
        }
    }

    fn is_under_way(&self) -> bool {
        self.status
            .is_some_and(|status| BackupStatus::UNDER_WAY.contains(&status))
    }

    fn status(&self) -> String {
        self.status
            .map_or_else(|| "-".to_owned(), |status| status.to_string())
    }

    /// What is done about it, in a word.
    fn at(&self) -> &str {
        match (self.worker, &self.report) {
            _ if self.error.is_some() => "unknown",
            (None, _) => "-",
            (Some(Seen::Dead), _) => "worker is dead",
            (Some(Seen::Alive), Some(report)) => &report.phase,
            (Some(Seen::Alive), None) => "preparing",
        }
    }

    /// How far it is, for people: done, planned, rate, time left.
    fn numbers(&self) -> [Option<String>; 4] {
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| BinaryBytes(bytes).to_string());
        let Some(report) = &self.report else {
            return [const { None }; 4];
        };
        let rate = bytes(report.bytes_per_second).map(|rate| rate + "/s");
        let left = report.seconds_left.map(left);
        [
            bytes(report.bytes_done),
            bytes(report.bytes_planned),
            rate,
            left,
        ]
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let [done, planned, rate, left] = self
            .numbers()
            .map(|column| column.unwrap_or_else(|| "-".to_owned()));
        let (backup, status) = (self.backup.to_string(), self.status());
        let host = self.host.as_deref().unwrap_or("-");
        let at = self.at();
        writeln!(
            out,
            "{backup:<36}  {status:<9}  {host:<24}  {at:<26}  {done:>11}  {planned:>11}  {rate:>13}  {left:>5}"
        )?;
        match &self.error {
            Some(error) => writeln!(out, "  {error}"),
            None => Ok(()),
        }
    }

    fn draw(&self, bar: &ProgressBar) {
        let planned = self.report.as_ref().and_then(|it| it.bytes_planned);
        match planned {
            Some(planned) => bar.set_length(planned),
            None => bar.unset_length(),
        }
        let done = self.report.as_ref().and_then(|it| it.bytes_done);
        bar.set_position(done.unwrap_or_default());
        let [_, _, rate, left] = self.numbers();
        let told = [Some(self.at().to_owned()), rate, left, self.error.clone()];
        bar.set_message(told.into_iter().flatten().collect::<Vec<_>>().join(", "));
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
    let Some((lines, missing)) = look(tool, &arguments.backups).await? else {
        return Ok(Outcome::Interrupted);
    };
    let out = &mut io::stdout();
    match arguments.output {
        Output::Table => {
            let [done, planned, rate, left] = ["DONE", "PLANNED", "RATE", "LEFT"];
            writeln!(
                out,
                "{:<36}  {:<9}  {:<24}  {:<26}  {done:>11}  {planned:>11}  {rate:>13}  {left:>5}",
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
    let failed = lines.iter().filter(|line| line.error.is_some()).count() + missing.len();
    Ok(outcome(failed, lines.len() + missing.len()))
}

fn outcome(failed: usize, all: usize) -> Outcome {
    match failed {
        0 => Outcome::Done,
        failed if failed == all => Outcome::Failed,
        _ => Outcome::Partly,
    }
}

/// What is seen of the backups that are named, or of all that are under way; and those that do not exist.
/// None if the user has seen enough.
async fn look(
    tool: &Tool,
    named: &[BackupId],
) -> anyhow::Result<Option<(Vec<Line>, Vec<BackupId>)>> {
    let looking = async {
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
        // A cluster that did not answer about one backup is not waited for again and again.
        let away = AtomicBool::new(false);
        let lines = stream::iter(rows).map(async |row| {
            let work = work(tool, &row, &away).await;
            Line::new(row, work)
        });
        Ok((lines.buffered(AT_ONCE).collect().await, missing))
    };
    tokio::select! {
        () = tool.cancel.cancelled() => Ok(None),
        looked = looking => looked.map(Some),
    }
}

async fn work(tool: &Tool, row: &Backup, away: &AtomicBool) -> anyhow::Result<Option<Work>> {
    let ours = &tool.config.backup.backup_driver;
    if !driver::is_ours(ours, row.service.as_deref()) {
        return Ok(None);
    }
    if away.load(Ordering::Relaxed) {
        bail!("the backup cluster does not answer");
    }
    match tokio::time::timeout(PATIENCE, tool.vault.work(row.id)).await {
        Ok(work) => Ok(work?),
        Err(_) => {
            away.store(true, Ordering::Relaxed);
            bail!("the backup cluster does not answer")
        }
    }
}

/// Shows bars until nothing is under way any more, or the user has seen enough.
async fn watch(tool: &Tool, named: &[BackupId]) -> anyhow::Result<Outcome> {
    let mut named = named.to_vec();
    let mut seen: BTreeMap<BackupId, ProgressBar> = BTreeMap::new();
    let (mut ended, mut failed) = (0, 0);
    loop {
        let Some((mut lines, missing)) = look(tool, &named).await? else {
            return Ok(Outcome::Interrupted);
        };
        if let Some(unknown) = missing.iter().find(|it| !seen.contains_key(*it)) {
            bail!("there is no backup {unknown}");
        }
        lines.retain(Line::is_under_way);
        for line in &lines {
            let name = || format!("{} {}", line.backup, line.status());
            let bar = seen.entry(line.backup);
            line.draw(bar.or_insert_with(|| tool.bars.add_told(name())));
        }
        let known: BTreeSet<BackupId> = seen.keys().chain(&named).copied().collect();
        let under_way = |backup: &BackupId| lines.iter().any(|line| line.backup == *backup);
        for backup in known.into_iter().filter(|backup| !under_way(backup)) {
            if let Some(bar) = seen.remove(&backup) {
                tool.bars.remove(&bar);
            }
            named.retain(|named| *named != backup);
            let became = match tool.database.backup(backup).await? {
                None => "deleted".to_owned(),
                Some(row) => row.status.map_or_else(String::new, |it| it.to_string()),
            };
            tool.bars
                .aside(|| writeln!(io::stdout(), "{backup}  {became}"))?;
            ended += 1;
            failed += usize::from(became.starts_with("error"));
        }
        if lines.is_empty() {
            return Ok(outcome(failed, ended));
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
    fn what_is_left_fits_its_column() {
        for seconds in [0, 59, 3600, 1 << 30] {
            assert!(left(seconds).len() <= 5, "{}", left(seconds));
        }
    }
}
