//! What is compared: Ceph's own tools and our engine, each as a child process, and what it costs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use cinderblock::rbd::{self, Image};
use cinderblock::transfer::{
    self, Budget, Destination, Digest, ImageSource, PumpOptions, Recorded, Recorder, TransferError,
    copy_diff,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use nix::sys::resource::{UsageWho, getrusage};
use uuid::Uuid;

use crate::data::{SOURCE_POOL, Sites, TARGET, TARGET_POOL};
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

/// In which manner our side moves what there is.
#[derive(Clone, Copy)]
pub struct Manner {
    pub digested: bool,
    /// Whether the source's object map is believed about what did not change.
    pub believing: bool,
}

/// What the child process of our side does.
pub async fn ours(job: &Job, manner: Manner) -> Result<()> {
    let sites = Sites::connect().await?;
    let (source, target) = tokio::try_join!(
        sites.source.open(&job.image, Some(&job.to)),
        sites.target.open_rw(&job.image),
    )?;
    match manner.digested {
        true => {
            let source = Recorded::new(&source, &Digests, source.known_size());
            copy(&source, job, &target, manner).await?;
        }
        false => copy(&source, job, &target, manner).await?,
    }
    target.create_snapshot(&job.to).await?;
    source.close().await;
    target.close().await;
    Ok(())
}

/// What the child process does that only reads, and then only writes.
pub async fn raw(job: &Job) -> Result<()> {
    const AT_ONCE: usize = 16;
    const LENGTH: u64 = 4 << 20;
    let sites = Sites::connect().await?;
    let (source, target) = tokio::try_join!(
        sites.source.open(&job.image, Some(&job.to)),
        sites.target.open_rw(&job.image),
    )?;
    let size = source.known_size();
    let memory = Budget::new(usize::try_from(size)? * 2);
    let parts = (0..size).step_by(LENGTH as usize);
    let reads = stream::iter(parts).map(async |at| {
        let buffer = memory.buffer(LENGTH.min(size - at) as usize).await;
        Ok::<_, rbd::Error>((at, source.read(at, buffer).await?))
    });
    let read: Vec<_> = reads.buffered(AT_ONCE).try_collect().await?;
    let writes = read
        .into_iter()
        .map(|(at, buffer)| target.write(at, bytes::Bytes::from_owner(buffer)));
    let mut writes = stream::iter(writes).buffer_unordered(AT_ONCE);
    while writes.try_next().await?.is_some() {}
    drop(writes);
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

    fn record(&self, _: u64, _: Vec<Digest>) {}
}

async fn copy<S: ImageSource>(
    source: &S,
    job: &Job,
    target: &Image,
    manner: Manner,
) -> std::result::Result<(), TransferError> {
    let destination = match job.from {
        None => Destination::Fresh,
        Some(_) => Destination::MayHoldData,
    };
    let options = PumpOptions {
        believe_map: manner.believing,
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
    /// `rbd export | rbd import`.
    WholePipe,
    /// All of it read into memory, then all of it written, as fast as the cluster takes it.
    Raw,
    /// `rbd deep cp`, which knows one cluster only.
    DeepCopy,
    /// `benji backup`, which stores in files, with the configuration that is usual for Ceph.
    Benji,
    /// Our engine as a backup uses it, with `trust_object_map = true`.
    Ours,
    /// The same without that, as by default.
    Doubting,
    /// The same without digests.
    Undigested,
}

#[derive(Clone, Copy)]
pub struct Cost {
    pub wall: f64,
    pub cpu: f64,
}

pub fn run(contender: Contender, sites: &Sites, job: &Job) -> Result<Cost> {
    let mut before = (cpu_of_children()?, Instant::now());
    match contender {
        Contender::Ours | Contender::Doubting | Contender::Undigested | Contender::Raw => {
            let from = job.from.as_deref().unwrap_or_default();
            let what = match contender {
                Contender::Undigested => "undigested",
                Contender::Doubting => "doubting",
                Contender::Raw => "raw",
                _ => "ours",
            };
            let status = ourselves()?
                .args([what, &job.image, from, &job.to])
                .env(TARGET, &sites.target_conf)
                .status()?;
            check(what, status)?;
        }
        Contender::WholePipe => {
            let spec = format!("{TARGET_POOL}/{}", job.image);
            let target = |arguments: &[&str]| rbd(&sites.target_conf, arguments);
            // It makes the image itself.
            check("rm", target(&["rm", "--no-progress", &spec]).status()?)?;
            let mut export = Command::new("rbd")
                .arg("--conf")
                .arg(&sites.source_conf)
                .args(["export", "--no-progress"])
                .args([&format!("{SOURCE_POOL}/{}@{}", job.image, job.to), "-"])
                .stdout(Stdio::piped())
                .spawn()?;
            let pipe = export.stdout.take().ok_or("no pipe")?;
            let import = target(&["import", "--no-progress", "-", &spec])
                .stdin(pipe)
                .status()?;
            check("import", import)?;
            check("export", export.wait()?)?;
            let snapshot = format!("{spec}@{}", job.to);
            let snapped = target(&["snap", "create", "--no-progress", &snapshot]).status()?;
            check("snap create", snapped)?;
        }
        Contender::Benji => {
            let source = format!("rbd:{SOURCE_POOL}/{}@{}", job.image, job.to);
            let store = Store::new(sites)?;
            before = (cpu_of_children()?, Instant::now());
            check("benji", store.benji(&["backup", &source, &job.image])?)?;
        }
        Contender::DeepCopy => {
            let spec = format!("{TARGET_POOL}/{}", job.image);
            let target = |arguments: &[&str]| rbd(&sites.target_conf, arguments);
            // It makes the image itself, and takes the snapshot with it.
            check("rm", target(&["rm", "--no-progress", &spec]).status()?)?;
            let source = format!("{SOURCE_POOL}/{}@{}", job.image, job.to);
            let copy = target(&["deep", "cp", "--no-progress", &source, &spec]).status()?;
            check("deep cp", copy)?;
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
        wall: before.1.elapsed().as_secs_f64(),
        cpu: (cpu_of_children()? - before.0).as_secs_f64(),
    })
}

/// This program, under `perf` if the variable `PROFILE` names a folder for what that records.
fn ourselves() -> Result<Command> {
    let Some(folder) = env::var_os("PROFILE") else {
        return Ok(Command::new(env::current_exe()?));
    };
    let file = format!("{}.perf", Uuid::new_v4());
    let mut perf = Command::new("perf");
    perf.args([
        "record",
        "--quiet",
        "--freq=499",
        "--call-graph=dwarf,32768",
    ])
    .arg("--output")
    .arg(Path::new(&folder).join(file))
    .arg("--")
    .arg(env::current_exe()?);
    Ok(perf)
}

/// Where Benji stores: gone with this.
struct Store(PathBuf);

impl Store {
    fn new(sites: &Sites) -> Result<Self> {
        let store = Self(env::temp_dir().join(format!("bench-benji-{}", std::process::id())));
        let (folder, conf) = (store.0.display(), sites.source_conf.display());
        fs::create_dir_all(store.0.join("data"))?;
        let configuration = format!(
            "configurationVersion: '1'\n\
             databaseEngine: sqlite:///{folder}/versions.sqlite\n\
             logFile: {folder}/log\n\
             defaultStorage: files\n\
             ios: [{{name: rbd, module: rbd, configuration: {{cephConfigFile: {conf}, \
             clientIdentifier: admin, simultaneousReads: 16, \
             newImageFeatures: [RBD_FEATURE_LAYERING]}}}}]\n\
             storages: [{{name: files, module: file, storageId: 1, configuration: {{path: {folder}/data, \
             simultaneousWrites: 5, simultaneousReads: 5}}}}]\n"
        );
        fs::write(store.0.join("benji.yaml"), configuration)?;
        check("benji", store.benji(&["database-init"])?)?;
        Ok(store)
    }

    fn benji(&self, arguments: &[&str]) -> Result<std::process::ExitStatus> {
        let program = env::var_os("BENJI").ok_or("BENJI names no program")?;
        let mut benji = Command::new(program);
        benji.arg("-c").arg(self.0.join("benji.yaml"));
        // It tells each step.
        benji.args(arguments).stderr(Stdio::null());
        Ok(benji.status()?)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left: {error}", self.0.display());
        }
    }
}

fn rbd(conf: &Path, arguments: &[&str]) -> Command {
    let mut rbd = Command::new("rbd");
    rbd.arg("--conf").arg(conf).args(arguments);
    rbd
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
