//! What transfers leave to each other.

use std::time::Duration;

use futures_util::future::join_all;

use super::extent::Extent;
use super::memory::Disk;
use super::plan::Plan;
use super::pump::pump;
use super::{Budget, Destination, Direction, Job, Limits, PumpOptions, TransferError};

const PAGE: usize = 4096;

fn options() -> PumpOptions {
    PumpOptions {
        operation_size: 4 * PAGE as u64,
        ..PumpOptions::new(Budget::new(1 << 20), Destination::Fresh)
    }
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_is_paused_begins_nothing_and_goes_on() {
    // More steps than are under way at a time.
    const SIZE: usize = 4 * 100 * PAGE;
    let (source, sink) = (Disk::new(vec![1; SIZE]), Disk::new(vec![0; SIZE]));
    let (limits, options) = (Limits::none(), options());
    let job = Job::new(limits.share(Direction::Backup, "one".into()));
    let plan = Plan::of(vec![Extent::data(0..SIZE as u64)], &job.progress);
    let transfer = pump(plan, &source, &sink, &options, &job);
    let meddle = async {
        while job.progress.done() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(limits.pause(true));
        assert!(!limits.pause(true));
        // What is under way comes to its end, and no more.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let done = job.progress.done();
        assert!(done < SIZE as u64);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(job.progress.done(), done);
        assert!(limits.pause(false));
    };
    let (stats, ()) = tokio::join!(transfer, meddle);
    stats.expect("moved");
    assert_eq!(sink.content(), source.content());

    // While it rests it can be ended.
    limits.pause(true);
    let plan = Plan::of(vec![Extent::data(0..SIZE as u64)], &job.progress);
    let transfer = pump(plan, &source, &sink, &options, &job);
    let cancel = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        job.cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(transfer, cancel);
    assert!(matches!(outcome, Err(TransferError::Cancelled)));
}

#[tokio::test(start_paused = true)]
async fn a_transfer_keeps_to_the_bandwidth_of_its_direction() {
    const SIZE: usize = 1024 * PAGE;
    let source = Disk::new(vec![1; SIZE]);
    let limits = Limits::none();
    limits.set_bandwidth(Direction::Restore, Some(SIZE as u64 / 64));
    let size = SIZE as u64;
    // What is compared with zeros is read, too.
    for (direction, seconds, extent, destination) in [
        (
            Direction::Backup,
            0,
            Extent::data(0..size),
            Destination::Fresh,
        ),
        (
            Direction::Restore,
            64,
            Extent::data(0..size),
            Destination::Fresh,
        ),
        (
            Direction::Restore,
            64,
            Extent::zero(0..size),
            Destination::Similar,
        ),
        (
            Direction::Restore,
            0,
            Extent::zero(0..size),
            Destination::MayHoldData,
        ),
    ] {
        let sink = Disk::new(vec![0; SIZE]);
        let job = Job::new(limits.share(direction, "one".into()));
        let plan = Plan::of(vec![extent], &job.progress);
        let begun = tokio::time::Instant::now();
        let options = PumpOptions {
            destination,
            ..options()
        };
        let moved = pump(plan, &source, &sink, &options, &job).await;
        moved.expect("moved");
        // The clock of the test: it is moved on by whoever sleeps.
        let taken = begun.elapsed().as_secs();
        assert!((seconds.max(8) - 8..=seconds).contains(&taken), "{taken}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_groups_move_as_much_as_each_other_however_many_transfers_they_have() {
    const SIZE: usize = 1000 * PAGE;
    let limits = Limits::none();
    limits.set_operations(8);
    limits.set_bandwidth(Direction::Backup, Some(100 * PAGE as u64));
    let job = |group: &str| Job::new(limits.share(Direction::Backup, group.into()));
    let jobs: Vec<Job> = ["many"; 9].into_iter().chain(["one"]).map(job).collect();
    let transfers = jobs.iter().map(|job| async {
        let (source, sink) = (Disk::new(vec![1; SIZE]), Disk::new(vec![0; SIZE]));
        let plan = Plan::of(vec![Extent::data(0..SIZE as u64)], &job.progress);
        let options = options();
        pump(plan, &source, &sink, &options, job).await
    });
    let some = tokio::time::timeout(Duration::from_secs(15), join_all(transfers));
    some.await.expect_err("they are not done by then");
    let done = |jobs: &[Job]| jobs.iter().map(|job| job.progress.done()).sum::<u64>();
    let (many, one) = (done(&jobs[..9]), done(&jobs[9..]));
    assert!(many * 9 < one * 10 && one * 9 < many * 10, "{many} {one}");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_bandwidth_keeps_no_place_from_others() {
    const SIZE: usize = 40 * PAGE;
    let limits = Limits::none();
    limits.set_operations(2);
    limits.set_bandwidth(Direction::Backup, Some(1));
    let run = async |direction| {
        let job = Job::new(limits.share(direction, "one".into()));
        let (source, sink) = (Disk::new(vec![1; SIZE]), Disk::new(vec![0; SIZE]));
        let plan = Plan::of(vec![Extent::data(0..SIZE as u64)], &job.progress);
        pump(plan, &source, &sink, &options(), &job).await
    };
    let held_up = join_all([Direction::Backup; 5].map(&run));
    tokio::select! {
        biased;
        _ = held_up => panic!("they are not done for hours"),
        restored = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            run(Direction::Restore).await
        } => restored.map(drop).expect("restored"),
    }
}
