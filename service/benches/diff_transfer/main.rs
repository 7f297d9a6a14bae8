//! The data path against `rbd export-diff | rbd import-diff`, in turns on the same data.
//!
//! Needs the two clusters of the lab (`LAB_VOLUMES_CEPH_CONF`, `LAB_BACKUPS_CEPH_CONF`). Options
//! after `--`: `--pairs N` (5), `--dense-mib N` (1024), `--thin-gib N` (100), `--only SET`. The sets are
//! `dense`, `whole` and `raw` (the same against `rbd export | rbd import`, and against reading all of it and
//! then writing all of it), `digests` (the same with and without them), `few` (little that changed in dense
//! data), `thin`, `scattered` and `unchanged`.
//!
//! Both contenders run as child processes, connections included, and end with a snapshot of the
//! destination. The destination is made anew or rolled back before each run, and compared with the
//! source after it; neither is timed. The order within a pair alternates.

mod contenders;
mod data;
mod report;

use std::time::Duration;

use cinderblock::transfer::{self, Budget, Destination, PumpOptions, take_back};

use contenders::{Contender, Job, job, job_of, ours, raw, run};
use data::{Noise, Sites, destroy, make, scatter, verify};
use report::report;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MEMORY: usize = 128 << 20;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    for (what, digested) in [("ours", true), ("undigested", false)] {
        if let Some(at) = arguments.iter().position(|argument| argument == what) {
            return runtime.block_on(ours(&job_of(&arguments[at + 1..])?, digested));
        }
    }
    if let Some(at) = arguments.iter().position(|argument| argument == "raw") {
        return runtime.block_on(raw(&job_of(&arguments[at + 1..])?));
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

async fn bench(settings: &Settings) -> Result<()> {
    let sites = Sites::connect().await?;
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    println!(
        "| data | peer: wall s (CPU s), MiB/s | ours: wall s (CPU s), MiB/s | wall ratio, median (min-max) | CPU ratio |"
    );
    println!("|---|---|---|---|---|");
    if ["dense", "whole", "raw", "digests", "few"]
        .iter()
        .any(|set| settings.wants(set))
    {
        dense(settings, &sites, &mut noise).await?;
    }
    if ["thin", "scattered", "unchanged"]
        .iter()
        .any(|set| settings.wants(set))
    {
        thin(settings, &sites, &mut noise).await?;
    }
    Ok(())
}

/// An image full of data, and a little that changes in it.
async fn dense(settings: &Settings, sites: &Sites, noise: &mut Noise) -> Result<()> {
    let name = "bench-dense";
    let image = make(&sites.source, name, settings.dense).await?;
    for at in (0..settings.dense).step_by(4 << 20) {
        let length = (4 * MIB).min(settings.dense - at);
        image.write(at, noise.bytes(length)).await?;
    }
    image.create_snapshot("full").await?;
    scatter(&image, noise, 8, 64 << 10).await?;
    image.create_snapshot("changed").await?;
    image.close().await;
    let full = job(name, None, "full");
    let few = job(name, Some("full"), "changed");
    if settings.wants("dense") {
        let title = "dense random, full";
        rounds(
            title,
            settings.dense,
            Contender::Pipe,
            settings,
            sites,
            &full,
        )
        .await?;
    }
    for (set, title, peer) in [
        (
            "whole",
            "the same, peer: rbd export | rbd import",
            Contender::WholePipe,
        ),
        (
            "raw",
            "the same, peer: all read, then all written",
            Contender::Raw,
        ),
    ] {
        if settings.wants(set) {
            rounds(title, settings.dense, peer, settings, sites, &full).await?;
        }
    }
    if settings.wants("digests") {
        let title = "the same, peer: ours without digests";
        rounds(
            title,
            settings.dense,
            Contender::Undigested,
            settings,
            sites,
            &full,
        )
        .await?;
    }
    if settings.wants("few") {
        prepare(sites, &full).await?;
        run(Contender::Ours, sites, &full)?;
        let title = "dense, 8 x 64 KiB changed";
        rounds(
            title,
            8 * (64 << 10),
            Contender::Pipe,
            settings,
            sites,
            &few,
        )
        .await?;
    }
    destroy(&sites.source, name).await?;
    destroy(&sites.target, name).await
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
            rounds(title, bytes, Contender::Pipe, settings, sites, &job).await?;
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
        take_back(&target, from, &options, &transfer::Job::default()).await?;
    }
    target.close().await;
    Ok(())
}

/// `bytes` is what there is to move.
async fn rounds(
    title: &str,
    bytes: u64,
    peer: Contender,
    settings: &Settings,
    sites: &Sites,
    job: &Job,
) -> Result<()> {
    let mut pairs = Vec::new();
    for round in 0..settings.pairs {
        let mut order = [peer, Contender::Ours];
        if round % 2 == 1 {
            order.reverse();
        }
        let (mut theirs, mut ours) = (None, None);
        for contender in order {
            prepare(sites, job).await?;
            // Removing the last destination goes on in the OSDs for a while.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let cost = run(contender, sites, job)?;
            verify(sites, job).await?;
            match contender {
                Contender::Ours => ours = Some(cost),
                _ => theirs = Some(cost),
            }
        }
        if let (Some(theirs), Some(ours)) = (theirs, ours) {
            pairs.push((theirs, ours));
        }
    }
    report(title, bytes, &pairs);
    Ok(())
}
