//! Many operations at a time while parts of the cloud are killed at random moments: nothing is lost, and
//! nothing is left behind.
//!
//! `SOAK_ROUNDS` says for how many rounds (three by default), and `SOAK_SEED` which ones: a run that fails
//! tells its seed. Chance only decides what is done and when; how the parts of the cloud interleave is up
//! to them.

use std::env;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{
    Cloud, Cluster, Content, Invariants, Lab, Reconfigured, Resource, Setup, eventually, image,
};
use fastrand::Rng;
use futures_util::future::try_join_all;
use reqwest::{Method, StatusCode};
use tokio::time::sleep;

const MIB: u64 = 1 << 20;

/// How long Cinder's services take until they are back at a broker that was started. What is sent to one
/// before that is lost: its queue is not durable.
const RECONNECT: Duration = Duration::from_secs(20);

/// How many volumes there are, each with one operation at a time.
const VOLUMES: usize = 6;

/// Two hosts, each of which takes over from the other.
const WORKERS: [&str; 2] = ["worker", "other-worker"];

/// Slowly enough to be met in the middle. Any backup of a chain may be deleted.
const SLOWLY: &str = "
[cinderblock]
independent_backups = true
backup_bandwidth = 16777216
restore_bandwidth = 16777216
checkpoint_interval = 1
takeover_after = 20
continue_timeout = 60
";

/// What goes wrong while operations are under way.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// `kill -9` of a worker, and a new start.
    Kill,
    /// The same twice, the second time while it takes up what it finds.
    KillTwice,
    /// The same, but it is started again only after the other one may have taken over.
    KillForLonger,
    /// `kill -9` of both.
    KillBoth,
    /// A worker hangs, perhaps until the other one has taken over, and goes on.
    Hang,
    /// Both are restarted in order, one after the other.
    RollingRestart,
    /// A part that both need is killed and started.
    Away(Part),
    /// It hangs for some time.
    Stuck(Part),
}

/// What the workers need.
#[derive(Debug, Clone, Copy)]
enum Part {
    Broker,
    Database,
    BackupsOsd,
    BackupsMon,
    VolumesOsd,
    CinderVolume,
}

impl Part {
    const ALL: [Self; 6] = [
        Self::Broker,
        Self::Database,
        Self::BackupsOsd,
        Self::BackupsMon,
        Self::VolumesOsd,
        Self::CinderVolume,
    ];

    fn name(self, lab: &Lab) -> Result<&'static str> {
        Ok(match self {
            Self::Broker => "rabbitmq",
            Self::Database => match lab.variable("LAB_DATABASE_URL")?.starts_with("postgresql") {
                true => "postgresql",
                false => "mariadb",
            },
            Self::BackupsOsd => "ceph-osd-backups",
            Self::BackupsMon => "ceph-mon-backups",
            Self::VolumesOsd => "ceph-osd-volumes",
            Self::CinderVolume => "cinder-volume",
        })
    }

    /// Waits until what uses it does so again.
    async fn is_back(self, lab: &Lab) -> Result<()> {
        match self {
            Self::Broker => sleep(RECONNECT).await,
            Self::BackupsOsd | Self::BackupsMon => {
                Cluster::backups(lab)?.wait_answers("backups").await?;
            }
            Self::VolumesOsd => Cluster::volumes(lab)?.wait_answers("volumes").await?,
            Self::Database | Self::CinderVolume => {}
        }
        Ok(())
    }
}

impl Fault {
    fn any(chance: &mut Rng) -> Self {
        let part = Part::ALL[chance.usize(..Part::ALL.len())];
        match chance.usize(..10) {
            0 => Self::Kill,
            1 => Self::KillTwice,
            2 => Self::KillForLonger,
            3 => Self::KillBoth,
            4 | 5 => Self::Hang,
            6 => Self::RollingRestart,
            7 | 8 => Self::Away(part),
            _ => Self::Stuck(part),
        }
    }

    /// Whether an operation may fail by it: what is sent to Cinder's own services while they are away, or
    /// their broker, may be lost.
    fn may_fail_others(self) -> bool {
        matches!(
            self,
            Self::Away(Part::Broker | Part::CinderVolume)
                | Self::Stuck(Part::Broker | Part::CinderVolume | Part::Database)
        )
    }

    async fn happen(self, lab: &Lab, chance: &mut Rng) -> Result<()> {
        let moment = |chance: &mut Rng, most: u64| Duration::from_millis(chance.u64(0..most));
        sleep(moment(chance, 4000)).await;
        let kill = async |part: &str| lab.command(&["stop", "--signal", "KILL", part]).await;
        let start = async |part: &str| lab.command(&["start", part]).await;
        let worker = WORKERS[chance.usize(..WORKERS.len())];
        match self {
            Self::Kill | Self::KillForLonger => {
                let longest = if let Self::Kill = self { 5 } else { 50 };
                kill(worker).await?;
                sleep(moment(chance, longest * 1000)).await;
                start(worker).await?;
            }
            Self::KillTwice => {
                kill(worker).await?;
                start(worker).await?;
                sleep(moment(chance, 25_000)).await;
                kill(worker).await?;
                start(worker).await?;
            }
            Self::KillBoth => {
                for worker in WORKERS {
                    kill(worker).await?;
                }
                for worker in WORKERS {
                    sleep(moment(chance, 40_000)).await;
                    start(worker).await?;
                }
            }
            Self::Hang => {
                let hang = Duration::from_secs(10) + moment(chance, 50_000);
                stop_for(lab, worker, hang).await?;
            }
            Self::RollingRestart => {
                for worker in WORKERS {
                    lab.command(&["restart", worker, "--wait"]).await?;
                }
            }
            Self::Away(part) => {
                let name = part.name(lab)?;
                kill(name).await?;
                sleep(moment(chance, 5000)).await;
                start(name).await?;
                part.is_back(lab).await?;
            }
            Self::Stuck(part) => {
                let hang = moment(chance, 30_000);
                stop_for(lab, part.name(lab)?, hang).await?;
                part.is_back(lab).await?;
            }
        }
        Ok(())
    }
}

async fn stop_for(lab: &Lab, part: &str, time: Duration) -> Result<()> {
    let hanging = async {
        sleep(time).await;
        Ok(())
    };
    lab.while_stopped(part, hanging).await
}

/// What is done with a volume or one of its backups.
#[derive(Debug, Clone)]
enum Operation {
    Backup { id: String, content: Content },
    RestoreToNew { backup: usize, target: String },
    RestoreToOther { backup: usize },
    Delete { backup: usize },
}

/// A volume, what its backups hold, and another volume to which they are restored.
struct Subject {
    volume: String,
    other: String,
    backups: Vec<(String, Content)>,
}

/// How often what came out.
#[derive(Debug, Default)]
struct Count {
    faults: usize,
    ended: usize,
    failed: usize,
}

struct Soak {
    setup: Setup,
    volumes: Cluster,
    invariants: Invariants,
    subjects: Vec<Subject>,
    count: Count,
}

impl Soak {
    async fn new() -> Result<Self> {
        let setup = Setup::new().await?;
        let invariants = Invariants::new(&setup.lab).await?;
        let subject = async |_| {
            let volume = setup.cloud.create_volume(1).await?;
            let other = setup.cloud.create_volume(1).await?;
            anyhow::Ok(Subject {
                volume,
                other,
                backups: Vec::new(),
            })
        };
        let subjects = try_join_all((0..VOLUMES).map(subject)).await?;
        Ok(Self {
            volumes: setup.cloud.volumes()?,
            invariants,
            subjects,
            count: Count::default(),
            setup,
        })
    }

    fn cloud(&self) -> &Cloud {
        &self.setup.cloud
    }

    /// Has something begun with each volume, lets something go wrong, and sees what comes of it.
    async fn round(&mut self, chance: &mut Rng) -> Result<()> {
        let mut begun = Vec::new();
        for subject in 0..VOLUMES {
            begun.push(self.begin(subject, chance).await?);
        }
        let verified: Vec<_> = self
            .subjects
            .iter()
            .filter_map(|subject| chance.choice(&subject.backups))
            .map(|(backup, _)| tokio::spawn(verify(self.setup.lab.clone(), backup.clone())))
            .collect();
        let fault = Fault::any(chance);
        println!("{fault:?} while {begun:?}");
        fault.happen(&self.setup.lab, chance).await?;
        self.count.faults += 1;
        let failed = self.count.failed;
        answers(self.cloud()).await?;
        for (subject, operation) in begun.into_iter().enumerate() {
            let ended = self.end(subject, &operation).await;
            ended.with_context(|| format!("{operation:?} after {fault:?}"))?;
        }
        for verified in verified {
            verified.await??;
        }
        let failed = self.count.failed - failed;
        ensure!(
            failed == 0 || fault.may_fail_others(),
            "{failed} failed after {fault:?}"
        );
        self.invariants.hold().await
    }

    async fn begin(&self, subject: usize, chance: &mut Rng) -> Result<Operation> {
        let Subject {
            volume,
            other,
            backups,
        } = &self.subjects[subject];
        let what = match backups.is_empty() {
            true => 0,
            false => chance.usize(..8),
        };
        let which = chance.usize(..backups.len().max(1));
        Ok(match what {
            0..=3 => {
                self.write(volume, chance).await?;
                let content = self.volumes.content(&image(volume)).await?;
                let incremental = what > 0;
                let id = self.cloud().begin_backup(volume, incremental).await?;
                Operation::Backup { id, content }
            }
            4 => {
                let backup = &backups[which].0;
                let target = self.cloud().begin_restore(backup, None).await?;
                Operation::RestoreToNew {
                    backup: which,
                    target,
                }
            }
            5 | 6 => {
                let backup = &backups[which].0;
                self.cloud().begin_restore(backup, Some(other)).await?;
                Operation::RestoreToOther { backup: which }
            }
            _ => {
                let backup = &backups[which].0;
                self.cloud().begin_delete(Resource::Backup, backup).await?;
                Operation::Delete { backup: which }
            }
        })
    }

    /// Writes here and there, and discards something.
    async fn write(&self, volume: &str, chance: &mut Rng) -> Result<()> {
        let image = image(volume);
        for _ in 0..chance.usize(1..4) {
            let mut data = vec![0; chance.usize(1..8 << 20)];
            chance.fill(&mut data);
            let offset = chance.u64(0..1000) * MIB + chance.u64(0..100) * 512;
            self.volumes.write(&image, offset, &data).await?;
        }
        let (offset, length) = (chance.u64(0..1000) * MIB, chance.u64(1..20) * MIB);
        self.volumes.discard(&image, offset, length).await
    }

    async fn end(&mut self, subject: usize, operation: &Operation) -> Result<()> {
        self.count.ended += 1;
        let cloud = self.setup.cloud.clone();
        let Subject { volume, other, .. } = &self.subjects[subject];
        let (volume, other) = (volume.clone(), other.clone());
        match operation {
            Operation::Backup { id, content } => {
                let status = cloud.settled(Resource::Backup, id).await?;
                cloud.wait(Resource::Volume, &volume, "available").await?;
                match status.as_deref() {
                    Some("available") => {
                        let made = (id.clone(), content.clone());
                        self.subjects[subject].backups.push(made);
                    }
                    Some("error") => {
                        self.count.failed += 1;
                        cloud.delete(Resource::Backup, id).await?;
                    }
                    status => anyhow::bail!("backup {id} is {status:?}"),
                }
            }
            Operation::RestoreToNew { backup, target } => {
                self.restored(subject, *backup, target).await?;
                cloud.delete(Resource::Volume, target).await?;
            }
            Operation::RestoreToOther { backup } => {
                if !self.restored(subject, *backup, &other).await? {
                    let admin = &self.setup.admin;
                    admin.reset(Resource::Volume, &other, "available").await?;
                }
            }
            Operation::Delete { backup } => {
                let (id, _) = self.subjects[subject].backups.remove(*backup);
                if cloud.settled(Resource::Backup, &id).await?.is_some() {
                    self.count.failed += 1;
                    cloud.delete(Resource::Backup, &id).await?;
                }
            }
        }
        Ok(())
    }

    /// Waits for the end of a restore; whether it succeeded, and then the volume holds what it has to.
    async fn restored(&mut self, subject: usize, backup: usize, target: &str) -> Result<bool> {
        let (id, content) = &self.subjects[subject].backups[backup];
        let cloud = &self.setup.cloud;
        cloud.becomes(Resource::Backup, id, "available").await?;
        let status = cloud.settled(Resource::Volume, target).await?;
        if status.as_deref() != Some("available") {
            self.count.failed += 1;
            return Ok(false);
        }
        let found = self.volumes.content(&image(target)).await?;
        ensure!(
            &found == content,
            "backup {id} was restored as something else"
        );
        Ok(true)
    }

    /// Compares everything that stands, and removes it.
    async fn finish(&mut self) -> Result<()> {
        for subject in &mut self.subjects {
            let cloud = &self.setup.cloud;
            for (backup, content) in std::mem::take(&mut subject.backups).into_iter().rev() {
                verify(self.setup.lab.clone(), backup.clone()).await?;
                cloud.restore(&backup, Some(&subject.other)).await?;
                let found = self.volumes.content(&image(&subject.other)).await?;
                ensure!(found == content, "backup {backup} is something else");
                cloud.delete(Resource::Backup, &backup).await?;
            }
            for volume in [&subject.volume, &subject.other] {
                cloud.delete(Resource::Volume, volume).await?;
            }
        }
        self.invariants.hold().await
    }
}

/// Has a backup read again, and what is not known of it written down. It may go meanwhile, or not be
/// reached; but it is never damaged.
async fn verify(lab: Lab, backup: String) -> Result<()> {
    let output = lab.tool(&["verify", &backup, "--record"]).await?;
    let told = String::from_utf8_lossy(&output.stdout);
    let code = output.status.code();
    ensure!(matches!(code, Some(0 | 1 | 3)), "{code:?}: {told}");
    Ok(())
}

/// Waits until cinder-api answers again and again: each of its processes finds out by itself that a
/// connection is dead, and tells whoever asked.
async fn answers(cloud: &Cloud) -> Result<()> {
    let asked = async || {
        let mut answers = Vec::new();
        for _ in 0..10 {
            let (status, _) = cloud.request(Method::GET, "/backups", None).await?;
            answers.push(status);
        }
        Ok(answers)
    };
    let all = |answers: &Vec<StatusCode>| answers.iter().all(StatusCode::is_success);
    eventually("cinder-api answers", asked, all).await?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_lost_and_nothing_is_left_whatever_is_killed() -> Result<()> {
    let set = |name| env::var(name).ok().map(|text| text.parse::<u64>());
    let seed = match set("SOAK_SEED") {
        Some(seed) => seed.context("SOAK_SEED")?,
        None => SystemTime::UNIX_EPOCH.elapsed()?.as_secs(),
    };
    let rounds = set("SOAK_ROUNDS").unwrap_or(Ok(3)).context("SOAK_ROUNDS")?;
    println!("SOAK_SEED={seed} SOAK_ROUNDS={rounds}");
    let mut chance = Rng::with_seed(seed);
    let mut soak = Soak::new().await?;
    let worker = Reconfigured::worker(&soak.setup.lab, SLOWLY).await?;
    let lab = soak.setup.lab.clone();
    lab.command(&["start", WORKERS[1], "--wait"]).await?;
    for round in 1..=rounds {
        let done = soak.round(&mut chance).await;
        done.with_context(|| format!("round {round} of SOAK_SEED={seed}"))?;
        println!("Round {round} of {rounds}: {:?}", soak.count);
    }
    lab.command(&["stop", WORKERS[1]]).await?;
    worker.restore().await?;
    soak.finish().await?;
    // Some requests are lost with their broker, or are not noted yet: no more than that.
    let Count { failed, ended, .. } = soak.count;
    ensure!(failed * 4 <= ended, "{failed} of {ended} failed");
    Ok(())
}
