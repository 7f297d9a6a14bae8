//! `cinderblock verify`.

use std::io::{self, Write};

use anyhow::bail;
use api_compat::ids::BackupId;
use api_compat::state::{BackupStatus, driver};
use clap::{ArgGroup, Args};
use indicatif::BinaryBytes;
use serde::Serialize;

use super::{Outcome, Output, Tool};
use crate::transfer::Job;
use crate::vault::{BackupRecord, Damage, Known, RestorePoint, Verified};

/// Read backups again and compare them with what was stored.
///
/// Every part of a backup is read, without writing it anywhere, and compared with the digests in the
/// backup's manifest. Damage is told by offset, object and pool. Backups that Python's worker made have
/// no manifest; --record gives them one.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true)), after_help = "Examples:
  cinderblock verify 246c011b-8fab-4538-90c2-f0ded6b69811
  cinderblock verify --all --output json
  cinderblock verify --all --record     # after a migration from Python's worker")]
pub struct Arguments {
    /// Ids of backups.
    #[arg(value_name = "BACKUP", group = "which")]
    backups: Vec<BackupId>,

    /// Verify every complete backup.
    #[arg(long, group = "which")]
    all: bool,

    /// Write down what backups hold of which that is not known, so that damage is noticed from now on.
    /// What is damaged already cannot be told then.
    #[arg(long)]
    record: bool,

    /// How to print the results.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// What came of one backup.
#[derive(Debug, Serialize)]
struct Report {
    backup: BackupId,
    result: Finding,
    #[serde(flatten)]
    point: Option<Place>,
    bytes_read: u64,
    bytes_unknown: u64,
    bytes_damaged: u64,
    damage: Vec<Damage>,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Place {
    pool: String,
    image: String,
    snapshot: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Finding {
    /// All of it is what was stored.
    Verified,
    /// What is known of it is.
    PartlyVerified,
    /// It has no manifest.
    NoManifest,
    /// It has one now.
    Recorded,
    Damaged,
    /// It could not be read.
    Failed,
}

impl Finding {
    fn of(verified: &Verified) -> Self {
        match verified.known {
            _ if !verified.damage.is_empty() => Self::Damaged,
            Known::Recorded => Self::Recorded,
            Known::Nothing => Self::NoManifest,
            Known::Whole if verified.bytes_unknown == 0 => Self::Verified,
            Known::Whole | Known::Partly => Self::PartlyVerified,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::PartlyVerified => "partly verified",
            Self::NoManifest => "no manifest",
            Self::Recorded => "recorded",
            Self::Damaged => "damaged",
            Self::Failed => "failed",
        }
    }
}

impl From<RestorePoint> for Place {
    fn from(point: RestorePoint) -> Self {
        Self {
            pool: point.pool,
            image: point.image,
            snapshot: point.snapshot,
        }
    }
}

impl Report {
    fn new(backup: BackupId, verified: anyhow::Result<Verified>) -> Self {
        let nothing = Self {
            backup,
            result: Finding::Failed,
            point: None,
            bytes_read: 0,
            bytes_unknown: 0,
            bytes_damaged: 0,
            damage: Vec::new(),
            error: None,
        };
        match verified {
            Ok(verified) => Self {
                result: Finding::of(&verified),
                point: Some(verified.point.into()),
                bytes_read: verified.bytes_read,
                bytes_unknown: verified.bytes_unknown,
                bytes_damaged: listed(&verified.damage) + verified.bytes_damaged_more,
                damage: verified.damage,
                ..nothing
            },
            Err(error) => Self {
                error: Some(format!("{error:#}")),
                ..nothing
            },
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{:<36}  {:<15}  {:>11}  {:>11}  {:>11}",
            self.backup.to_string(),
            self.result.as_str(),
            BinaryBytes(self.bytes_read).to_string(),
            BinaryBytes(self.bytes_unknown).to_string(),
            BinaryBytes(self.bytes_damaged).to_string(),
        )?;
        for damage in &self.damage {
            writeln!(out, "  {damage}")?;
        }
        let more = self.bytes_damaged - listed(&self.damage);
        if more > 0 {
            writeln!(out, "  and {} more", BinaryBytes(more))?;
        }
        if let Some(error) = &self.error {
            writeln!(out, "  {error}")?;
        }
        Ok(())
    }
}

/// Bytes of the places that are told one by one.
fn listed(damage: &[Damage]) -> u64 {
    damage.iter().map(|damage| damage.length).sum()
}

/// Verifies what is asked for; a line is printed as soon as it is known.
pub async fn run(tool: &Tool, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let backups = match arguments.all {
        true => tool.database.complete_backups().await?,
        false => arguments.backups.clone(),
    };
    let out = &mut io::stdout();
    if arguments.output == Output::Table {
        let [read, unknown, damaged] = ["READ", "UNKNOWN", "DAMAGED"];
        writeln!(
            out,
            "{:<36}  {:<15}  {read:>11}  {unknown:>11}  {damaged:>11}",
            "BACKUP", "RESULT"
        )?;
    }
    let mut reports = Vec::new();
    for backup in backups {
        let Some(record) = record(tool, backup, arguments.all).await.transpose() else {
            continue;
        };
        let verified = match record {
            Ok(record) => verify(tool, &record, arguments.record).await,
            Err(error) => Err(error),
        };
        if tool.cancel.is_cancelled() {
            break;
        }
        let report = Report::new(backup, verified);
        if arguments.output == Output::Table {
            tool.bars.aside(|| report.write(out))?;
        }
        reports.push(report);
    }
    if arguments.output == Output::Json {
        serde_json::to_writer_pretty(&mut *out, &reports).map_err(io::Error::from)?;
        writeln!(out)?;
    }
    Ok(match outcome(&reports) {
        Outcome::Damaged => Outcome::Damaged,
        _ if tool.cancel.is_cancelled() => Outcome::Interrupted,
        outcome => outcome,
    })
}

/// Where a backup lies; of one among `all`, `None` if it is another driver's, or gone since they were
/// listed.
async fn record(tool: &Tool, id: BackupId, all: bool) -> anyhow::Result<Option<BackupRecord>> {
    let row = match tool.database.backup(id).await? {
        None if all => return Ok(None),
        None => bail!("there is no such backup"),
        Some(row) => row,
    };
    let ours = &tool.config.backup.backup_driver;
    match (row.status, row.service.as_deref()) {
        (_, service) if !driver::is_ours(ours, service) && all => Ok(None),
        (_, service) if !driver::is_ours(ours, service) => {
            bail!("driver {} made it", service.unwrap_or_default())
        }
        (Some(BackupStatus::Available | BackupStatus::Restoring), _) => {
            let sole = !tool.database.shares_base(&row).await?;
            Ok(Some(BackupRecord::of(&row, sole)?))
        }
        (Some(status), _) => bail!("it is {status}, not available"),
        (None, _) => bail!("its status is none that is known"),
    }
}

async fn verify(tool: &Tool, backup: &BackupRecord, record: bool) -> anyhow::Result<Verified> {
    let job = Job {
        cancel: tool.cancel.clone(),
        ..Job::default()
    };
    let verifying = tool.vault.verify(backup, record, &job);
    let name = backup.backup.to_string();
    Ok(tool.bars.show(name, &job.progress, verifying).await?)
}

/// What is to be said of all of them.
fn outcome(reports: &[Report]) -> Outcome {
    let every = |findings: &[Finding]| {
        let mut reports = reports.iter();
        reports.all(|report| findings.contains(&report.result))
    };
    match () {
        () if reports.iter().any(|it| it.result == Finding::Damaged) => Outcome::Damaged,
        () if every(&[Finding::Verified, Finding::Recorded]) => Outcome::Done,
        () if every(&[Finding::Failed]) => Outcome::Failed,
        () => Outcome::Partly,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_called_right_that_was_not_looked_at() {
        let id: BackupId = "246c011b-8fab-4538-90c2-f0ded6b69811"
            .parse()
            .expect("an id");
        let reports = |findings: &[Finding]| -> Vec<Report> {
            let report = |result: &Finding| Report {
                result: *result,
                ..Report::new(id, Err(anyhow::anyhow!("none")))
            };
            findings.iter().map(report).collect()
        };
        use Finding::{Damaged, Failed, NoManifest, PartlyVerified, Recorded, Verified};
        for (findings, expected) in [
            (&[][..], Outcome::Done),
            (&[Verified, Recorded], Outcome::Done),
            (&[Verified, NoManifest], Outcome::Partly),
            (&[PartlyVerified], Outcome::Partly),
            (&[Failed, Verified], Outcome::Partly),
            (&[Failed, Failed], Outcome::Failed),
            (&[Failed, Damaged, Verified], Outcome::Damaged),
        ] {
            assert_eq!(outcome(&reports(findings)), expected, "{findings:?}");
        }
    }
}
