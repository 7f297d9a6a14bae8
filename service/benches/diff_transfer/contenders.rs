//! What is compared: Ceph's own tools and our engine, each as a child process, and what it costs.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cinderblock::rbd::Image;
use cinderblock::transfer::{
    self, BlockError, Budget, Destination, Digest, ImageSource, PumpOptions, Recorded, Recorder,
    TransferError, copy_diff,
};
use nix::sys::resource::{UsageWho, getrusage};

use crate::data::{SOURCE_POOL, Sites, TARGET_POOL};
use crate::{MEMORY, Result};

/// One thing to move: from a snapshot, or all, to a snapshot.
#[derive(Clone)]
pub struct Job {
    pub image: String,
    pub from: Option<String>,
    pub to: String,
}

pub fn job(image: &str, from: Option<&str>, to: &str) -> Job {
    Job {
        image: image.to_owned(),
        from: from.map(str::to_owned),
        to: to.to_owned(),
    }
}

pub fn job_of(arguments: &[String]) -> Result<Job> {
    match arguments {
        [image, from, to] => Ok(Job {
            image: image.clone(),
            from: Some(from.clone()).filter(|from| !from.is_empty()),
            to: to.clone(),
        }),
        _ => Err("ours IMAGE FROM TO".into()),
    }
}

/// What the child process of our side does.
pub async fn ours(job: &Job, digested: bool) -> Result<()> {
    let sites = Sites::connect().await?;
    let (source, target) = tokio::try_join!(
        sites.source.open(&job.image, Some(&job.to)),
        sites.target.open_rw(&job.image),
    )?;
    match digested {
        true => {
            let source = Recorded::new(&source, &Digests, source.known_size());
            copy(&source, job, &target).await?;
        }
        false => copy(&source, job, &target).await?,
    }
    target.create_snapshot(&job.to).await?;
    source.close().await;
    target.close().await;
    Ok(())
}

/// Takes digests and forgets them: a manifest is one or two small objects.
struct Digests;

impl Recorder for Digests {
    fn seed(&self) -> u64 {
        1
    }

    async fn record(&self, _: u64, _: Vec<Digest>) -> std::result::Result<(), BlockError> {
        Ok(())
    }
}

async fn copy<S: ImageSource>(
    source: &S,
    job: &Job,
    target: &Image,
) -> std::result::Result<(), TransferError> {
    let destination = match job.from {
        None => Destination::Fresh,
        Some(_) => Destination::MayHoldData,
    };
    let options = PumpOptions {
        // As after a backup with a manifest.
        believe_map: true,
        ..PumpOptions::new(Budget::new(MEMORY), destination)
    };
    copy_diff(
        source,
        job.from.as_deref(),
        target,
        &options,
        &transfer::Job::default(),
    )
    .await?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
pub enum Contender {
    /// `rbd export-diff | rbd import-diff`.
    Pipe,
    /// Our engine as a backup uses it.
    Ours,
    /// The same without digests.
    Undigested,
}

#[derive(Clone, Copy)]
pub struct Cost {
    pub wall: f64,
    pub cpu: f64,
}

pub fn run(contender: Contender, sites: &Sites, job: &Job) -> Result<Cost> {
    let (before, start) = (cpu_of_children()?, Instant::now());
    match contender {
        Contender::Ours | Contender::Undigested => {
            let from = job.from.as_deref().unwrap_or_default();
            let what = match contender {
                Contender::Undigested => "undigested",
                _ => "ours",
            };
            let status = Command::new(std::env::current_exe()?)
                .args([what, &job.image, from, &job.to])
                .status()?;
            check(what, status)?;
        }
        Contender::Pipe => {
            let mut export = Command::new("rbd");
            export.arg("--conf").arg(&sites.source_conf);
            export.args(["export-diff", "--no-progress"]);
            if let Some(from) = &job.from {
                export.args(["--from-snap", from]);
            }
            export.args([&format!("{SOURCE_POOL}/{}@{}", job.image, job.to), "-"]);
            let mut export = export.stdout(Stdio::piped()).spawn()?;
            let pipe = export.stdout.take().ok_or("no pipe")?;
            let import = Command::new("rbd")
                .arg("--conf")
                .arg(&sites.target_conf)
                .args(["import-diff", "--no-progress", "-"])
                .arg(format!("{TARGET_POOL}/{}", job.image))
                .stdin(pipe)
                .status()?;
            check("import-diff", import)?;
            check("export-diff", export.wait()?)?;
        }
    }
    Ok(Cost {
        wall: start.elapsed().as_secs_f64(),
        cpu: (cpu_of_children()? - before).as_secs_f64(),
    })
}

pub fn check(what: &str, status: std::process::ExitStatus) -> Result<()> {
    if status.success() {
        Ok(())
    } else {
        Err(format!("{what}: {status}").into())
    }
}

/// User and system time of all children that have ended.
pub fn cpu_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let (user, system) = (usage.user_time(), usage.system_time());
    let micros = (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}
