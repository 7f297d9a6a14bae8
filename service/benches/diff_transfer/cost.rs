//! What processes cost.

use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::resource::{UsageWho, getrusage};

use crate::Result;

/// How often the memory of processes is looked at.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Clone, Copy)]
pub struct Cost {
    /// Seconds.
    pub wall: f64,
    /// Seconds of processors, in user and system mode.
    pub cpu: f64,
    /// The most memory that was resident, in MiB, summed up over processes that ran at once.
    pub memory: f64,
}

/// Counts what child processes cost from when it was started.
pub struct Meter {
    begun: Instant,
    cpu: Duration,
    /// KiB.
    memory: u64,
}

impl Meter {
    pub fn start() -> Result<Self> {
        Ok(Self {
            begun: Instant::now(),
            cpu: cpu_of_children()?,
            memory: 0,
        })
    }

    /// Waits for processes that run at once.
    pub fn wait(&mut self, what: &str, children: impl IntoIterator<Item = Child>) -> Result<()> {
        let mut children: Vec<Child> = children.into_iter().collect();
        let ids: Vec<u32> = children.iter().map(Child::id).collect();
        let ended = AtomicBool::new(false);
        let (outcomes, memory) = thread::scope(|scope| {
            let looking = scope.spawn(|| peak(&ids, &ended));
            let outcomes: Vec<_> = children.iter_mut().map(Child::wait).collect();
            ended.store(true, Ordering::Relaxed);
            (outcomes, looking.join())
        });
        self.memory = self
            .memory
            .max(memory.map_err(|_| "counting memory failed")?);
        for outcome in outcomes {
            let status = outcome?;
            if !status.success() {
                return Err(format!("{what}: {status}").into());
            }
        }
        Ok(())
    }

    pub fn cost(self) -> Result<Cost> {
        Ok(Cost {
            wall: self.begun.elapsed().as_secs_f64(),
            cpu: (cpu_of_children()? - self.cpu).as_secs_f64(),
            memory: self.memory as f64 / 1024.0,
        })
    }
}

/// The sum of what each process had at most, in KiB.
fn peak(processes: &[u32], ended: &AtomicBool) -> u64 {
    let mut peaks = vec![0; processes.len()];
    while !ended.load(Ordering::Relaxed) {
        for (peak, process) in peaks.iter_mut().zip(processes) {
            let status = fs::read_to_string(format!("/proc/{process}/status"));
            let status = status.unwrap_or_default();
            let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let most = most.and_then(|most| most.trim().strip_suffix(" kB"));
            *peak = most.and_then(|most| most.parse().ok()).unwrap_or(*peak);
        }
        thread::sleep(LOOK);
    }
    peaks.iter().sum()
}

/// User and system time of all children that have ended.
fn cpu_of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let (user, system) = (usage.user_time(), usage.system_time());
    let micros = (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}
