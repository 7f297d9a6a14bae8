//! The data path against `rbd export-diff | rbd import-diff`, in turns on the same data.
//!
//! Needs the two clusters of the lab (`LAB_VOLUMES_CEPH_CONF`, `LAB_BACKUPS_CEPH_CONF`). Options
//! after `--`: `--pairs N` (5), `--dense-mib N` (1024), `--thin-gib N` (100), `--latency MS` (0; each message
//! of a client's waits up to so long, evenly spread), `--only SET`. The sets are `dense`, `whole` and `raw`
//! (the same against `rbd export | rbd import`, and against reading all of it and then writing all of it),
//! `deep` (the same within one cluster, against `rbd deep cp`), `digests` (the same with and without them),
//! `few` (little that changed in dense data), `half` and `zeros` (every second grain of 64 KiB holds zeros,
//! and all of them do), `thin`, `scattered` and `unchanged` (both also with an object map that is not
//! believed), `many` (from one to 64 at once), and `huge` (the same data in 10 GiB and in 10 TiB). `benji` (dense data against `benji backup`,
//! whose program the variable `BENJI` names) only where it is asked
//! for.
//!
//! Both contenders run as child processes, connections included, and end with a snapshot of the
//! destination. The destination is made anew or rolled back before each run, and compared with the
//! source after it; neither is timed. The order within a pair alternates.

mod contenders;
mod cost;
mod data;
mod ours;
mod report;
mod sets;

use contenders::jobs_of;
use data::Sites;
use ours::{Manner, ours, raw};

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
    if let Some((what, words)) = arguments.split_first()
        && !what.starts_with('-')
    {
        let jobs = jobs_of(words)?;
        let manner = |digested, believing| Manner {
            digested,
            believing,
        };
        return match what.as_str() {
            "ours" => runtime.block_on(ours(&jobs, manner(true, true))),
            "doubting" => runtime.block_on(ours(&jobs, manner(true, false))),
            "undigested" => runtime.block_on(ours(&jobs, manner(false, true))),
            "raw" => runtime.block_on(raw(jobs.first().ok_or("no job")?)),
            other => Err(format!("{other} is not known").into()),
        };
    }
    let settings = Settings::of(&arguments)?;
    runtime.block_on(bench(&settings))
}

struct Settings {
    pairs: usize,
    dense: u64,
    thin: u64,
    latency: u64,
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
            latency: number("--latency", 0)?,
            only: value("--only").cloned(),
        })
    }

    fn wants(&self, set: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == set)
    }
}

async fn bench(settings: &Settings) -> Result<()> {
    let sites = Sites::connect().await?;
    let slow = data::slow_down(&sites, settings.latency)?;
    println!(
        "| data | peer: s (CPU s, MiB) | ours: s (CPU s, MiB) | MiB/s | wall, ours / peer (min to max) | CPU | memory |"
    );
    println!("|---|---|---|---|---|---|---|");
    sets::play(settings, &sites).await?;
    drop(slow);
    Ok(())
}
