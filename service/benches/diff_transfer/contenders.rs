//! What is compared: Ceph's own tools and our engine, as child processes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use uuid::Uuid;

use crate::Result;
use crate::cost::{Cost, Meter};
use crate::data::{SOURCE_POOL, Sites, TARGET, TARGET_POOL};

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

/// What the arguments of a child process name.
pub fn jobs_of(arguments: &[String]) -> Result<Vec<Job>> {
    let jobs = arguments.chunks(3).map(|words| match words {
        [image, from, to] => Ok(Job {
            image: image.clone(),
            from: Some(from.clone()).filter(|from| !from.is_empty()),
            to: to.clone(),
        }),
        _ => Err("an image, a snapshot or nothing, and a snapshot are needed".into()),
    });
    jobs.collect()
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

/// Does all the jobs, at once where the contender can.
pub fn run(contender: Contender, sites: &Sites, jobs: &[Job]) -> Result<Cost> {
    let mut meter = Meter::start()?;
    match contender {
        Contender::Ours | Contender::Doubting | Contender::Undigested | Contender::Raw => {
            let mut ours = ourselves()?;
            ours.arg(match contender {
                Contender::Undigested => "undigested",
                Contender::Doubting => "doubting",
                Contender::Raw => "raw",
                _ => "ours",
            });
            for job in jobs {
                let from = job.from.as_deref().unwrap_or_default();
                ours.args([&job.image, from, &job.to]);
            }
            let child = ours.env(TARGET, &sites.target_conf).spawn()?;
            meter.wait("ours", vec![child])?;
        }
        Contender::WholePipe => {
            for job in jobs {
                let spec = format!("{TARGET_POOL}/{}", job.image);
                // It makes the image itself.
                meter.wait("rm", vec![rbd_of_target(sites, &["rm", &spec]).spawn()?])?;
                let mut export = rbd(&sites.source_conf, &["export", &source(job), "-"]);
                let import = rbd_of_target(sites, &["import", "-", &spec]);
                meter.wait("export and import", piped(&mut export, import)?)?;
                let snapshot = format!("{spec}@{}", job.to);
                let mut snap = rbd_of_target(sites, &["snap", "create", &snapshot]);
                meter.wait("snap create", vec![snap.spawn()?])?;
            }
        }
        Contender::Benji => {
            for job in jobs {
                let store = Store::new(sites)?;
                meter = Meter::start()?;
                let source = format!("rbd:{}", source(job));
                let backup = store.benji(&["backup", &source, &job.image])?.spawn()?;
                meter.wait("benji", vec![backup])?;
            }
        }
        Contender::DeepCopy => {
            for job in jobs {
                let spec = format!("{TARGET_POOL}/{}", job.image);
                // It makes the image itself, and takes the snapshot with it.
                meter.wait("rm", vec![rbd_of_target(sites, &["rm", &spec]).spawn()?])?;
                let mut copy = rbd_of_target(sites, &["deep", "cp", &source(job), &spec]);
                meter.wait("deep cp", vec![copy.spawn()?])?;
            }
        }
        Contender::Pipe => {
            let mut children = Vec::new();
            for job in jobs {
                let mut export = rbd(&sites.source_conf, &["export-diff"]);
                if let Some(from) = &job.from {
                    export.args(["--from-snap", from]);
                }
                export.args([&source(job), "-"]);
                let target = format!("{TARGET_POOL}/{}", job.image);
                let import = rbd_of_target(sites, &["import-diff", "-", &target]);
                children.extend(piped(&mut export, import)?);
            }
            meter.wait("export-diff and import-diff", children)?;
        }
    }
    meter.cost()
}

/// Two processes, of which one reads what the other writes.
fn piped(from: &mut Command, mut to: Command) -> Result<[Child; 2]> {
    let mut from = from.stdout(Stdio::piped()).spawn()?;
    let pipe = from.stdout.take().ok_or("no pipe")?;
    let to = to.stdin(pipe).spawn()?;
    Ok([from, to])
}

/// What is to be moved, as `rbd` calls it.
fn source(job: &Job) -> String {
    format!("{SOURCE_POOL}/{}@{}", job.image, job.to)
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
        Meter::start()?.wait("benji", vec![store.benji(&["database-init"])?.spawn()?])?;
        Ok(store)
    }

    fn benji(&self, arguments: &[&str]) -> Result<Command> {
        let program = env::var_os("BENJI").ok_or("BENJI names no program")?;
        let mut benji = Command::new(program);
        benji.arg("-c").arg(self.0.join("benji.yaml"));
        // It tells each step.
        benji.args(arguments).stderr(Stdio::null());
        Ok(benji)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left: {error}", self.0.display());
        }
    }
}

fn rbd_of_target(sites: &Sites, arguments: &[&str]) -> Command {
    rbd(&sites.target_conf, arguments)
}

fn rbd(conf: &Path, arguments: &[&str]) -> Command {
    let mut rbd = Command::new("rbd");
    rbd.arg("--conf").arg(conf).arg("--no-progress");
    rbd.args(arguments);
    rbd
}
