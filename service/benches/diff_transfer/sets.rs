//! The sets of data, and what is done with each of them.

use std::time::Duration;

use cinderblock::rbd::Image;
use cinderblock::transfer::{self, Budget, Destination, PumpOptions, take_back};

use crate::contenders::{Contender, Job, job, run};
use crate::data::{Noise, Sites, destroy, make, scatter, verify};
use crate::report::report;
use crate::{GIB, MEMORY, MIB, Result, Settings};

const GRAIN: u64 = 64 << 10;

/// What one of the two does.
#[derive(Clone)]
struct Turn {
    contender: Contender,
    jobs: Vec<Job>,
}

/// A line of the report.
struct Line<'a> {
    title: &'a str,
    /// What there is to move.
    bytes: u64,
    peer: Turn,
    ours: Turn,
}

impl<'a> Line<'a> {
    fn new(title: &'a str, bytes: u64, peer: Contender, job: &Job) -> Self {
        let turn = |contender| Turn {
            contender,
            jobs: vec![job.clone()],
        };
        Self {
            title,
            bytes,
            peer: turn(peer),
            ours: turn(Contender::Ours),
        }
    }
}

pub async fn play(settings: &Settings, sites: &Sites) -> Result<()> {
    let noise = &mut Noise(0x9e37_79b9_7f4a_7c15);
    let any = |sets: &[&str]| sets.iter().any(|set| settings.wants(set));
    if any(&["dense", "whole", "raw", "deep", "benji", "digests", "few"]) {
        dense(settings, sites, noise).await?;
    }
    for (set, title, zeros) in [
        ("half", "every second 64 KiB zeros", 2),
        ("zeros", "written zeros", 1),
    ] {
        if any(&[set]) {
            with_zeros(settings, sites, noise, (title, zeros)).await?;
        }
    }
    if any(&["thin", "scattered", "unchanged"]) {
        thin(settings, sites, noise).await?;
    }
    if any(&["many"]) {
        many(settings, sites, noise).await?;
    }
    if any(&["huge"]) {
        huge(settings, sites, noise).await?;
    }
    Ok(())
}

async fn fill(image: &Image, noise: &mut Noise, size: u64) -> Result<()> {
    for at in (0..size).step_by(4 << 20) {
        let length = (4 * MIB).min(size - at);
        image.write(at, noise.bytes(length)).await?;
    }
    Ok(())
}

/// An image full of data, and a little that changes in it.
async fn dense(settings: &Settings, sites: &Sites, noise: &mut Noise) -> Result<()> {
    let (name, size) = ("bench-dense", settings.dense);
    let image = make(&sites.source, name, size).await?;
    fill(&image, noise, size).await?;
    image.create_snapshot("full").await?;
    scatter(&image, noise, 8, GRAIN).await?;
    image.create_snapshot("changed").await?;
    image.close().await;
    let full = job(name, None, "full");
    for (set, title, peer) in [
        ("dense", "dense random, full", Contender::Pipe),
        (
            "whole",
            "the same, peer: rbd export to rbd import",
            Contender::WholePipe,
        ),
        (
            "raw",
            "the same, peer: all read, then all written",
            Contender::Raw,
        ),
        (
            "digests",
            "the same, peer: ours without digests",
            Contender::Undigested,
        ),
    ] {
        if settings.wants(set) {
            let line = Line::new(title, size, peer, &full);
            rounds(&line, settings, sites).await?;
        }
    }
    if settings.only.as_deref() == Some("benji") {
        let title = "the same, peer: benji backup to files";
        let line = Line::new(title, size, Contender::Benji, &full);
        rounds(&line, settings, sites).await?;
    }
    if settings.wants("deep") {
        let title = "the same within a cluster, peer: rbd deep cp";
        let line = Line::new(title, size, Contender::DeepCopy, &full);
        let within = sites.within_one().await?;
        rounds(&line, settings, &within).await?;
        destroy(&within.target, name).await?;
    }
    if settings.wants("few") {
        prepare(sites, &full).await?;
        run(Contender::Ours, sites, &[full])?;
        let few = job(name, Some("full"), "changed");
        let line = Line::new(
            "dense, 8 x 64 KiB changed",
            8 * GRAIN,
            Contender::Pipe,
            &few,
        );
        rounds(&line, settings, sites).await?;
    }
    destroy(&sites.source, name).await?;
    destroy(&sites.target, name).await
}

/// An image that is written as a whole; of so many grains the last one holds zeros.
async fn with_zeros(
    settings: &Settings,
    sites: &Sites,
    noise: &mut Noise,
    (title, every): (&str, u64),
) -> Result<()> {
    let (name, size) = ("bench-zeros", settings.dense);
    let image = make(&sites.source, name, size).await?;
    for at in (0..size).step_by(4 << 20) {
        let mut data = noise.bytes((4 * MIB).min(size - at)).to_vec();
        for (number, grain) in data.chunks_mut(GRAIN as usize).enumerate() {
            if (number as u64 + 1).is_multiple_of(every) {
                grain.fill(0);
            }
        }
        image.write(at, data.into()).await?;
    }
    image.create_snapshot("full").await?;
    image.close().await;
    let line = Line::new(title, size, Contender::Pipe, &job(name, None, "full"));
    rounds(&line, settings, sites).await?;
    destroy(&sites.source, name).await?;
    destroy(&sites.target, name).await
}

/// A large image with little in it, little that changes, and nothing that changes.
async fn thin(settings: &Settings, sites: &Sites, noise: &mut Noise) -> Result<()> {
    let name = "bench-thin";
    let image = make(&sites.source, name, settings.thin).await?;
    scatter(&image, noise, 1000, GRAIN).await?;
    image.create_snapshot("full").await?;
    scatter(&image, noise, 320, GRAIN).await?;
    image.create_snapshot("changed").await?;
    image.create_snapshot("same").await?;
    image.close().await;
    for (set, title, pieces, job) in [
        (
            "thin",
            "thin, 1000 x 64 KiB, full",
            1000,
            job(name, None, "full"),
        ),
        (
            "scattered",
            "320 x 64 KiB changed",
            320,
            job(name, Some("full"), "changed"),
        ),
        (
            "unchanged",
            "unchanged",
            0,
            job(name, Some("changed"), "same"),
        ),
    ] {
        if settings.wants(set) {
            let mut line = Line::new(title, pieces * GRAIN, Contender::Pipe, &job);
            rounds(&line, settings, sites).await?;
            if job.from.is_some() {
                line.title = "the same, the object map not believed";
                line.ours.contender = Contender::Doubting;
                rounds(&line, settings, sites).await?;
            }
        } else {
            prepare(sites, &job).await?;
            run(Contender::Ours, sites, &[job])?;
        }
    }
    destroy(&sites.source, name).await?;
    destroy(&sites.target, name).await
}

/// From one to 64 images at once.
async fn many(settings: &Settings, sites: &Sites, noise: &mut Noise) -> Result<()> {
    const EACH: u64 = 32 * MIB;
    let names: Vec<String> = (0..64)
        .map(|number| format!("bench-many-{number}"))
        .collect();
    for name in &names {
        let image = make(&sites.source, name, EACH).await?;
        fill(&image, noise, EACH).await?;
        image.create_snapshot("full").await?;
        image.close().await;
    }
    for count in [1, 2, 4, 8, 16, 32, 64] {
        let turn = |contender| Turn {
            contender,
            jobs: names[..count]
                .iter()
                .map(|name| job(name, None, "full"))
                .collect(),
        };
        let line = Line {
            title: &format!("{count} x 32 MiB at once"),
            bytes: count as u64 * EACH,
            peer: turn(Contender::Pipe),
            ours: turn(Contender::Ours),
        };
        rounds(&line, settings, sites).await?;
    }
    for name in &names {
        destroy(&sites.source, name).await?;
        destroy(&sites.target, name).await?;
    }
    Ok(())
}

/// The same data in a small image and in a huge one.
async fn huge(settings: &Settings, sites: &Sites, noise: &mut Noise) -> Result<()> {
    let sizes = [("bench-small", 10 * GIB), ("bench-huge", 10 << 40)];
    for (name, size) in sizes {
        let image = make(&sites.source, name, size).await?;
        let step = size / (settings.dense / (4 * MIB)) / (4 * MIB) * (4 * MIB);
        for at in 0..settings.dense / (4 * MIB) {
            image.write(at * step, noise.bytes(4 * MIB)).await?;
        }
        image.create_snapshot("full").await?;
        image.create_snapshot("same").await?;
        image.close().await;
    }
    let [small, huge] = sizes.map(|(name, _)| name);
    for (title, from, to, bytes) in [
        (
            "thin 10 TiB, full, peer: ours in 10 GiB",
            None,
            "full",
            settings.dense,
        ),
        ("the same, unchanged", Some("full"), "same", 0),
    ] {
        let mut line = Line::new(title, bytes, Contender::Ours, &job(huge, from, to));
        line.peer.jobs = vec![job(small, from, to)];
        rounds(&line, settings, sites).await?;
    }
    for (name, _) in sizes {
        destroy(&sites.source, name).await?;
        destroy(&sites.target, name).await?;
    }
    Ok(())
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

async fn rounds(line: &Line<'_>, settings: &Settings, sites: &Sites) -> Result<()> {
    let mut pairs = Vec::new();
    for round in 0..settings.pairs {
        let mut costs = [None, None];
        let order = match round % 2 {
            0 => [0, 1],
            _ => [1, 0],
        };
        for at in order {
            let turn = [&line.peer, &line.ours][at];
            for job in &turn.jobs {
                prepare(sites, job).await?;
            }
            // Removing the last destination goes on in the OSDs for a while.
            tokio::time::sleep(Duration::from_secs(2)).await;
            costs[at] = Some(run(turn.contender, sites, &turn.jobs)?);
            // What Benji stores is no image.
            if turn.contender != Contender::Benji {
                for job in &turn.jobs {
                    verify(sites, job).await?;
                }
            }
        }
        if let [Some(theirs), Some(ours)] = costs {
            pairs.push((theirs, ours));
        }
    }
    report(line.title, line.bytes, &pairs);
    Ok(())
}
