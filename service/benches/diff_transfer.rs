//! The data path against `rbd export-diff | rbd import-diff`, in turns on the same data.
//!
//! Needs the two clusters of the lab (`LAB_VOLUMES_CEPH_CONF`, `LAB_BACKUPS_CEPH_CONF`). Options
//! after `--`: `--pairs N` (5), `--dense-mib N` (1024), `--thin-gib N` (100), `--only SET`.
//!
//! Both contenders run as child processes, connections included, and end with a snapshot of the
//! destination. The destination is made anew or rolled back before each run, and compared with the
//! source after it; neither is timed. The order within a pair alternates.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cinderblock::rbd::{
    Cluster, ClusterOptions, DiffQuery, ErrorKind, Features, Image, ImageOptions, Pool,
};
use cinderblock::transfer::{
    Budget, Destination, Progress, PumpOptions, TransferError, copy_diff, take_back,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use nix::sys::resource::{UsageWho, getrusage};
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MEMORY: usize = 128 << 20;
const SOURCE_POOL: &str = "volumes";
const TARGET_POOL: &str = "backups";

/// One thing to move: from a snapshot, or all, to a snapshot.
#[derive(Clone)]
struct Job {
    image: String,
    from: Option<String>,
    to: String,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if let Some(at) = arguments.iter().position(|argument| argument == "ours") {
        return runtime.block_on(ours(&job_of(&arguments[at + 1..])?));
    }
    let settings = Settings::of(&arguments)?;
    runtime.block_on(bench(&settings))
}

struct Settings {
    pairs: usize,
    dense: u64,
    thin: u64,
    only: Option<String>,
}

impl Settings {
    fn of(arguments: &[String]) -> Result<Self> {
        let value = |name: &str| -> Option<&String> {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1)
        };
        let number = |name: &str, default: u64| -> Result<u64> {
            Ok(value(name).map_or(Ok(default), |text| text.parse())?)
        };
        Ok(Self {
            pairs: number("--pairs", 5)? as usize,
            dense: number("--dense-mib", 1024)? * MIB,
            thin: number("--thin-gib", 100)? * GIB,
            only: value("--only").cloned(),
        })
    }

    fn wants(&self, set: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == set)
    }
}

fn conf(variable: &str) -> Result<PathBuf> {
    let path =
        std::env::var_os(variable).ok_or(format!("{variable} is not set: run `make bench`"))?;
    Ok(path.into())
}

struct Sites {
    source_conf: PathBuf,
    target_conf: PathBuf,
    source: Pool,
    target: Pool,
}

impl Sites {
    async fn connect() -> Result<Self> {
        let source_conf = conf("LAB_VOLUMES_CEPH_CONF")?;
        let target_conf = conf("LAB_BACKUPS_CEPH_CONF")?;
        let pool = async |conf: &Path, pool: &str| {
            let options = ClusterOptions::new("admin").conf_file(conf);
            Cluster::connect(options).await?.pool(pool).await
        };
        Ok(Self {
            source: pool(&source_conf, SOURCE_POOL).await?,
            target: pool(&target_conf, TARGET_POOL).await?,
            source_conf,
            target_conf,
        })
    }
}

// ---- the contenders ----

fn job_of(arguments: &[String]) -> Result<Job> {
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
async fn ours(job: &Job) -> Result<()> {
    let sites = Sites::connect().await?;
    let (source, target) = tokio::try_join!(
        sites.source.open(&job.image, Some(&job.to)),
        sites.target.open_rw(&job.image),
    )?;
    copy(&source, job, &target).await?;
    target.create_snapshot(&job.to).await?;
    source.close().await;
    target.close().await;
    Ok(())
}

async fn copy(source: &Image, job: &Job, target: &Image) -> std::result::Result<(), TransferError> {
    let destination = match job.from {
        None => Destination::Fresh,
        Some(_) => Destination::MayHoldData,
    };
    let options = PumpOptions::new(Budget::new(MEMORY), destination);
    let progress = Arc::new(Progress::default());
    let cancel = CancellationToken::new();
    copy_diff(
        source,
        job.from.as_deref(),
        target,
        &options,
        &progress,
        &cancel,
    )
    .await?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Contender {
    Peer,
    Ours,
}

#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

fn run(contender: Contender, sites: &Sites, job: &Job) -> Result<Cost> {
    let (before, start) = (cpu_of_children()?, Instant::now());
    match contender {
        Contender::Ours => {
            let from = job.from.as_deref().unwrap_or_default();
            let status = Command::new(std::env::current_exe()?)
                .args(["ours", &job.image, from, &job.to])
                .status()?;
            check("ours", status)?;
        }
        Contender::Peer => {
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

fn check(what: &str, status: std::process::ExitStatus) -> Result<()> {
    if status.success() {
        Ok(())
    } else {
        Err(format!("{what}: {status}").into())
    }
}

/// User and system time of all children that have ended.
fn cpu_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let (user, system) = (usage.user_time(), usage.system_time());
    let micros = (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

// ---- the data ----

/// Numbers that look random and are the same in every run.
struct Noise(u64);

impl Noise {
    fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: u64) -> bytes::Bytes {
        let words = (0..length / 8).flat_map(|_| self.number().to_le_bytes());
        words.collect::<Vec<u8>>().into()
    }
}

fn image_options(size: u64) -> ImageOptions {
    ImageOptions {
        size,
        features: Some(
            Features::LAYERING
                | Features::EXCLUSIVE_LOCK
                | Features::OBJECT_MAP
                | Features::FAST_DIFF,
        ),
        ..ImageOptions::default()
    }
}

async fn make(pool: &Pool, name: &str, size: u64) -> Result<Image> {
    destroy(pool, name).await?;
    pool.create_image(name, &image_options(size)).await?;
    Ok(pool.open_rw(name).await?)
}

async fn destroy(pool: &Pool, name: &str) -> Result<()> {
    match pool.open_rw(name).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        image => {
            let image = image?;
            for snapshot in image.snapshots().await? {
                image.remove_snapshot(&snapshot.name).await?;
            }
            image.close().await;
        }
    }
    Ok(pool.remove_image(name).await?)
}

async fn scatter(image: &Image, noise: &mut Noise, count: u64, length: u64) -> Result<()> {
    let places = image.known_size() / (64 << 10);
    for _ in 0..count {
        let place = noise.number() % places * (64 << 10);
        image.write(place, noise.bytes(length)).await?;
    }
    Ok(())
}

/// Compares both sides, object by object where either of them has one.
async fn verify(sites: &Sites, job: &Job) -> Result<()> {
    let source = sites.source.open(&job.image, Some(&job.to)).await?;
    let target = sites.target.open(&job.image, Some(&job.to)).await?;
    let size = source.known_size();
    if target.known_size() != size {
        return Err("sizes differ".into());
    }
    if target.stripe_period() != source.stripe_period() {
        return Err("object sizes differ".into());
    }
    let mut places = objects(&source).await?;
    places.append(&mut objects(&target).await?);
    let different = stream::iter(places)
        .map(|at| {
            let length = source.stripe_period().min(size - at) as usize;
            let (source, target) = (&source, &target);
            async move {
                let (left, right) = tokio::try_join!(
                    source.read(at, vec![0; length]),
                    target.read(at, vec![0; length])
                )?;
                Ok::<_, cinderblock::rbd::Error>((left != right).then_some(at))
            }
        })
        .buffer_unordered(8)
        .try_fold(None, async |first: Option<u64>, at| Ok(first.or(at)))
        .await?;
    source.close().await;
    target.close().await;
    different.map_or(Ok(()), |at| {
        Err(format!("{} differs at {at}", job.image).into())
    })
}

/// Where the objects of an image start, of those that exist.
async fn objects(image: &Image) -> Result<BTreeSet<u64>> {
    let query = DiffQuery {
        from: None,
        range: 0..image.known_size(),
        include_parent: true,
        whole_objects: true,
    };
    let found = Arc::new(Mutex::new(BTreeSet::new()));
    let collect = Arc::clone(&found);
    let step = image.stripe_period();
    image
        .diff(query, move |change| {
            if let Ok(mut found) = collect.lock() {
                let last = change.offset + change.length;
                found.extend((change.offset / step..last.div_ceil(step)).map(|at| at * step));
            }
            ControlFlow::Continue(())
        })
        .await?;
    let found = found.lock().map_err(|_| "a walk broke off")?.clone();
    Ok(found)
}

// ---- the rounds ----

async fn bench(settings: &Settings) -> Result<()> {
    let sites = Sites::connect().await?;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    println!(
        "| data | peer wall s (CPU s), MiB/s | ours wall s (CPU s), MiB/s | wall ratio, median (min-max) | CPU ratio |"
    );
    println!("|---|---|---|---|---|");
    if settings.wants("dense") {
        let job = job("bench-dense", None, "full");
        let image = make(&sites.source, &job.image, settings.dense).await?;
        for at in (0..settings.dense).step_by(4 << 20) {
            let length = (4 * MIB).min(settings.dense - at);
            image.write(at, noise.bytes(length)).await?;
        }
        image.create_snapshot(&job.to).await?;
        image.close().await;
        rounds("dense random, full", settings.dense, settings, &sites, &job).await?;
        destroy(&sites.source, &job.image).await?;
        destroy(&sites.target, &job.image).await?;
    }
    if ["thin", "scattered", "unchanged"]
        .iter()
        .any(|set| settings.wants(set))
    {
        thin(settings, &sites, &mut noise).await?;
    }
    Ok(())
}

fn job(image: &str, from: Option<&str>, to: &str) -> Job {
    Job {
        image: image.to_owned(),
        from: from.map(str::to_owned),
        to: to.to_owned(),
    }
}

/// A large image with little in it, little that changes, and nothing that changes.
async fn thin(settings: &Settings, sites: &Sites, noise: &mut Noise) -> Result<()> {
    let name = "bench-thin";
    let image = make(&sites.source, name, settings.thin).await?;
    scatter(&image, noise, 1000, 64 << 10).await?;
    image.create_snapshot("full").await?;
    scatter(&image, noise, 320, 64 << 10).await?;
    image.create_snapshot("changed").await?;
    image.create_snapshot("same").await?;
    image.close().await;
    let jobs = [
        (
            "thin",
            "thin, 1000 x 64 KiB, full",
            1000 * (64 << 10),
            job(name, None, "full"),
        ),
        (
            "scattered",
            "320 x 64 KiB changed",
            320 * (64 << 10),
            job(name, Some("full"), "changed"),
        ),
        (
            "unchanged",
            "unchanged",
            0,
            job(name, Some("changed"), "same"),
        ),
    ];
    for (set, title, bytes, job) in jobs {
        if settings.wants(set) {
            rounds(title, bytes, settings, sites, &job).await?;
        } else {
            prepare(sites, &job).await?;
            run(Contender::Ours, sites, &job)?;
        }
    }
    destroy(&sites.source, name).await?;
    destroy(&sites.target, name).await
}

/// A destination that is empty, or holds just what the job starts from.
async fn prepare(sites: &Sites, job: &Job) -> Result<()> {
    let Some(from) = &job.from else {
        let source = sites.source.open(&job.image, None).await?;
        let target = make(&sites.target, &job.image, source.known_size()).await?;
        source.close().await;
        target.close().await;
        return Ok(());
    };
    let target = sites.target.open_rw(&job.image).await?;
    if target
        .snapshots()
        .await?
        .iter()
        .any(|found| found.name == job.to)
    {
        target.remove_snapshot(&job.to).await?;
        let options = PumpOptions::new(Budget::new(MEMORY), Destination::MayHoldData);
        take_back(&target, from, &options, &CancellationToken::new()).await?;
    }
    target.close().await;
    Ok(())
}

/// `bytes` is what there is to move.
async fn rounds(
    title: &str,
    bytes: u64,
    settings: &Settings,
    sites: &Sites,
    job: &Job,
) -> Result<()> {
    let mut pairs = Vec::new();
    for round in 0..settings.pairs {
        let mut order = [Contender::Peer, Contender::Ours];
        if round % 2 == 1 {
            order.reverse();
        }
        let (mut peer, mut ours) = (None, None);
        for contender in order {
            prepare(sites, job).await?;
            // Removing the last destination goes on in the OSDs for a while.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let cost = run(contender, sites, job)?;
            verify(sites, job).await?;
            match contender {
                Contender::Peer => peer = Some(cost),
                Contender::Ours => ours = Some(cost),
            }
        }
        if let (Some(peer), Some(ours)) = (peer, ours) {
            pairs.push((peer, ours));
        }
    }
    report(title, bytes, &pairs);
    Ok(())
}

fn report(title: &str, bytes: u64, pairs: &[(Cost, Cost)]) {
    let of = |pick: &dyn Fn(&(Cost, Cost)) -> f64| spread(pairs.iter().map(pick).collect());
    let (peer, ours) = (of(&|pair| pair.0.wall), of(&|pair| pair.1.wall));
    let (peer_cpu, ours_cpu) = (of(&|pair| pair.0.cpu), of(&|pair| pair.1.cpu));
    let wall = of(&|pair| pair.1.wall / pair.0.wall);
    let cpu = of(&|pair| pair.1.cpu / pair.0.cpu);
    let rate = |seconds: f64| bytes as f64 / MIB as f64 / seconds;
    println!(
        "| {title} | {:.2} ({:.2}), {:.0} | {:.2} ({:.2}), {:.0} | {:.2} ({:.2}-{:.2}) | {:.2} |",
        peer.1,
        peer_cpu.1,
        rate(peer.1),
        ours.1,
        ours_cpu.1,
        rate(ours.1),
        wall.1,
        wall.0,
        wall.2,
        cpu.1
    );
}

/// Least, median and most.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    let middle = values.len() / 2;
    let median = match values.len() % 2 {
        0 if middle > 0 => f64::midpoint(at(middle - 1), at(middle)),
        _ => at(middle),
    };
    (at(0), median, at(values.len().saturating_sub(1)))
}
