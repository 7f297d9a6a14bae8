//! What an operation costs: time, and the processor time and memory of a worker with its children.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The kernel's unit of processor time, a second.
const TICKS: f64 = 100.0;

/// What something took.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Seconds.
    pub wall: f64,
    /// Seconds, of user and system, children included.
    pub cpu: f64,
    /// MiB at most, of all processes together.
    pub memory: f64,
}

/// Measures what `work` costs the process tree below `pid`.
pub async fn measure<T>(pid: u32, work: impl Future<Output = Result<T>>) -> Result<(T, Cost)> {
    let before = Tree::of(pid)?;
    let stop = CancellationToken::new();
    let _guard: DropGuard = stop.clone().drop_guard();
    let memory = tokio::spawn(peak(pid, stop.clone()));
    let begun = Instant::now();
    let done = work.await?;
    let wall = begun.elapsed().as_secs_f64();
    stop.cancel();
    let cost = Cost {
        wall,
        cpu: Tree::of(pid)?.ticks_since(&before) as f64 / TICKS,
        memory: memory.await? as f64 / f64::from(1 << 20),
    };
    Ok((done, cost))
}

async fn peak(pid: u32, stop: CancellationToken) -> u64 {
    let mut peak = 0;
    while !stop.is_cancelled() {
        if let Ok(tree) = Tree::of(pid) {
            peak = peak.max(tree.memory);
        }
        tokio::time::sleep(LOOK).await;
    }
    peak
}

/// A process and all below it.
struct Tree {
    /// Ticks of each, with those of the children that it has waited for.
    ticks: HashMap<u32, u64>,
    /// Bytes.
    memory: u64,
}

impl Tree {
    fn of(root: u32) -> Result<Self> {
        let mut parents = HashMap::new();
        let mut ticks = HashMap::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // Gone meanwhile.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
                continue;
            };
            // Its name, in brackets, may hold anything.
            let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
            let fields: Vec<&str> = fields.split(' ').collect();
            let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
            let used = (11..15).filter_map(number).sum();
            parents.insert(pid, number(1).unwrap_or_default() as u32);
            ticks.insert(pid, used);
        }
        let below = |pid: u32| {
            let mut at = Some(pid);
            std::iter::from_fn(|| {
                let now = at?;
                at = parents.get(&now).copied();
                Some(now)
            })
            .any(|pid| pid == root)
        };
        ticks.retain(|pid, _| below(*pid));
        ticks.get(&root).context("the worker is gone")?;
        let memory = ticks.keys().filter_map(|pid| resident(*pid)).sum();
        Ok(Self { ticks, memory })
    }

    fn ticks_since(&self, before: &Self) -> u64 {
        let all = |tree: &Self| tree.ticks.values().sum::<u64>();
        all(self).saturating_sub(all(before))
    }
}

/// Its memory, of which what several processes share counts once.
fn resident(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib << 10)
}
