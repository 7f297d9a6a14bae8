//! The pump between disks in memory.

use proptest::prelude::*;

use super::extent::{Extent, ExtentKind};
use super::memory::{Call, Disk, Fault};
use super::plan::Plan;
use super::pump::pump;
use super::{BlockError, Budget, Destination, Job, PumpOptions, Stats, TransferError};
use crate::rbd::ErrorKind;

const PAGE: usize = 4096;

fn options(budget: &Budget, destination: Destination) -> PumpOptions {
    PumpOptions {
        operation_size: 4 * PAGE as u64,
        ..PumpOptions::new(budget.clone(), destination)
    }
}

async fn run(
    extents: Vec<Extent>,
    source: &Disk,
    sink: &Disk,
    options: &PumpOptions,
) -> Result<Stats, TransferError> {
    let job = Job::default();
    let plan = Plan::of(extents, &job.progress);
    let stats = pump(plan, source, sink, options, &job).await?;
    assert_eq!(job.progress.done(), job.progress.planned());
    Ok(stats)
}

fn pattern(pages: usize) -> Vec<u8> {
    (0..pages * PAGE)
        .map(|at| (at / 7 % 255 + 1) as u8)
        .collect()
}

#[tokio::test]
async fn zeros_are_left_out_on_a_fresh_destination() {
    let mut content = pattern(16);
    content[3 * PAGE..5 * PAGE].fill(0);
    let (source, sink) = (Disk::new(content.clone()), Disk::new(vec![0; 16 * PAGE]));
    let options = options(&Budget::new(1 << 20), Destination::Fresh);
    let extents = vec![
        Extent::data(0..8 * PAGE as u64),
        Extent::zero(8 * PAGE as u64..12 * PAGE as u64),
    ];
    let stats = run(extents, &source, &sink, &options)
        .await
        .expect("transfer");
    assert_eq!(sink.content()[..8 * PAGE], content[..8 * PAGE]);
    let pages = |count: usize| (count * PAGE) as u64;
    assert_eq!(
        stats,
        Stats {
            bytes_read: pages(8),
            bytes_written: pages(6),
            bytes_discarded: 0,
            bytes_zero_skipped: pages(6),
            bytes_unchanged: 0,
            extents: 2,
            operations: 3,
        }
    );
    assert_eq!(sink.calls().last(), Some(&Call::Flush));
}

#[tokio::test]
async fn zeros_replace_what_the_destination_held() {
    let mut content = pattern(8);
    content[3 * PAGE..5 * PAGE].fill(0);
    content[6 * PAGE..].fill(0);
    let (source, sink) = (Disk::new(content.clone()), Disk::new(vec![9; 8 * PAGE]));
    let options = options(&Budget::new(1 << 20), Destination::MayHoldData);
    let extents = vec![
        Extent::data(0..6 * PAGE as u64),
        Extent::zero(6 * PAGE as u64..8 * PAGE as u64),
    ];
    let stats = run(extents, &source, &sink, &options)
        .await
        .expect("transfer");
    assert_eq!(sink.content(), content);
    assert_eq!(stats.bytes_discarded, 4 * PAGE as u64);
}

#[tokio::test]
async fn of_a_similar_destination_only_what_differs_is_written() {
    let mut content = pattern(16);
    content[3 * PAGE..5 * PAGE].fill(0);
    let mut old = content.clone();
    old[PAGE + 5] ^= 1;
    old[4 * PAGE] = 7;
    old[9 * PAGE] = 7;
    let (source, sink) = (Disk::new(content.clone()), Disk::new(old));
    let options = PumpOptions {
        zero_grain: PAGE,
        compare_zeros: false,
        ..options(&Budget::new(1 << 20), Destination::Similar)
    };
    let pages = |count: usize| (count * PAGE) as u64;
    // What the plan calls zero it is, whatever is read there.
    content[8 * PAGE..12 * PAGE].fill(0);
    content[13 * PAGE..14 * PAGE].fill(0);
    let extents = vec![
        Extent::data(0..pages(8)),
        Extent::zero(pages(8)..pages(12)),
        Extent::data(pages(12)..pages(13)),
        Extent::zero(pages(13)..pages(14)),
        Extent::data(pages(14)..pages(16)),
    ];
    let transferred = run(extents, &source, &sink, &options).await;
    let stats = transferred.expect("transfer");
    assert!(sink.content() == content);
    assert_eq!(stats.bytes_written, pages(1));
    assert_eq!(stats.bytes_discarded, pages(1 + 4 + 1));
    assert_eq!(stats.bytes_unchanged, pages(6 + 3));
    let writes = sink.calls().into_iter();
    let writes = writes.filter(|call| matches!(call, Call::Write { .. } | Call::Zero { .. }));
    assert_eq!(writes.count(), 4);
}

#[tokio::test]
async fn what_is_zero_already_is_not_zeroed() {
    let mut old = vec![0; 16 * PAGE];
    old[5 * PAGE] = 1;
    let (source, sink) = (Disk::new(vec![0; 16 * PAGE]), Disk::new(old));
    let options = options(&Budget::new(1 << 20), Destination::Similar);
    let pages = 16 * PAGE as u64;
    let transferred = run(vec![Extent::zero(0..pages)], &source, &sink, &options).await;
    let stats = transferred.expect("transfer");
    assert!(sink.content().iter().all(|byte| *byte == 0));
    assert_eq!(stats.bytes_discarded, pages / 4);
    assert_eq!(stats.bytes_unchanged, pages / 4 * 3);
    assert!(source.calls().is_empty());
}

#[tokio::test]
async fn a_destination_that_cannot_be_read_is_written() {
    let (content, pages) = (pattern(8), 8 * PAGE as u64);
    let source = Disk::new(content.clone());
    let sink = Disk::new(content.clone()).with_fault(PAGE as u64, Fault::Unreadable);
    let options = options(&Budget::new(1 << 20), Destination::Similar);
    let transferred = run(vec![Extent::data(0..pages)], &source, &sink, &options).await;
    let stats = transferred.expect("transfer");
    assert!(sink.content() == content);
    assert_eq!(
        (stats.bytes_written, stats.bytes_unchanged),
        (pages / 2, pages / 2)
    );
}

#[tokio::test]
async fn an_error_names_side_offset_and_kind() {
    let at = 9 * PAGE as u64 + 17;
    let whole = || vec![Extent::data(0..16 * PAGE as u64)];
    let options = options(&Budget::new(1 << 20), Destination::Fresh);
    let sound = || Disk::new(pattern(16));

    let failing = sound().with_fault(at, Fault::Errno(libc::EIO));
    let error = run(whole(), &failing, &sound(), &options)
        .await
        .expect_err("the source fails");
    assert_eq!(error.kind(), Some(ErrorKind::Io));
    assert!(matches!(
        error,
        TransferError::Read { offset, length, .. } if (offset..offset + length).contains(&at)
    ));

    let failing = sound().with_fault(at, Fault::Errno(libc::ENOSPC));
    let error = run(whole(), &sound(), &failing, &options)
        .await
        .expect_err("the sink fails");
    assert_eq!(error.kind(), Some(ErrorKind::NoSpace));
    assert!(matches!(
        error,
        TransferError::Write { offset, length, .. } if (offset..offset + length).contains(&at)
    ));
    assert!(!failing.calls().contains(&Call::Flush));
}

#[tokio::test]
async fn after_an_error_nothing_new_is_started_and_all_memory_is_returned() {
    let budget = Budget::new(1 << 20);
    let options = PumpOptions {
        depth: 2,
        ..options(&budget, Destination::Fresh)
    };
    let source = Disk::new(pattern(64)).with_fault(0, Fault::Errno(libc::EIO));
    let sink = Disk::new(vec![0; 64 * PAGE]);
    run(
        vec![Extent::data(0..64 * PAGE as u64)],
        &source,
        &sink,
        &options,
    )
    .await
    .expect_err("the source fails");
    assert!(source.calls().len() <= 2, "{:?}", source.calls());
    assert_eq!(budget.allocated(), 0);
}

#[tokio::test]
async fn an_error_of_one_piece_waits_for_the_others_and_begins_no_more() {
    // Every second page is zero: one operation of 32 pieces.
    let mut content = pattern(32);
    for page in (1..32).step_by(2) {
        content[page * PAGE..(page + 1) * PAGE].fill(0);
    }
    let options = PumpOptions {
        operation_size: 32 * PAGE as u64,
        ..options(&Budget::new(1 << 20), Destination::MayHoldData)
    };
    let whole = vec![Extent::data(0..32 * PAGE as u64)];
    let source = Disk::new(content);
    let sink = Disk::new(vec![9; 32 * PAGE]).with_fault(0, Fault::Errno(libc::EIO));
    let failed = run(whole, &source, &sink, &options).await;
    failed.expect_err("the sink fails");
    assert_eq!(sink.under_way(), 0, "{:?}", sink.calls());
    assert!(sink.calls().len() <= 8, "{:?}", sink.calls());
}

#[tokio::test(start_paused = true)]
async fn cancelling_ends_a_transfer_that_hangs() {
    let budget = Budget::new(1 << 20);
    let options = options(&budget, Destination::Fresh);
    let source = Disk::new(pattern(64)).with_fault(5 * PAGE as u64, Fault::Hangs);
    let sink = Disk::new(vec![0; 64 * PAGE]);
    let job = Job::default();
    let plan = Plan::of(vec![Extent::data(0..64 * PAGE as u64)], &job.progress);
    let transfer = pump(plan, &source, &sink, &options, &job);
    let stop = async {
        while job.progress.done() < 60 * PAGE as u64 {
            tokio::task::yield_now().await;
        }
        job.cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(transfer, stop);
    assert!(matches!(outcome, Err(TransferError::Cancelled)));
    assert!(!sink.calls().contains(&Call::Flush));
    assert_eq!(budget.allocated(), 0);
}

#[tokio::test]
async fn a_cancelled_transfer_does_not_start() {
    let options = options(&Budget::new(1 << 20), Destination::Fresh);
    let (source, sink) = (Disk::new(pattern(4)), Disk::new(vec![0; 4 * PAGE]));
    let job = Job::default();
    job.cancel.cancel();
    let plan = Plan::of(vec![Extent::data(0..4 * PAGE as u64)], &job.progress);
    let outcome = pump(plan, &source, &sink, &options, &job).await;
    assert!(matches!(outcome, Err(TransferError::Cancelled)));
    assert!(source.calls().is_empty());
}

#[tokio::test]
async fn a_planner_that_dies_is_no_short_plan() {
    let (sender, plan) = Plan::channel();
    drop(sender);
    let options = options(&Budget::new(1 << 20), Destination::Fresh);
    let disk = Disk::new(Vec::new());
    let job = Job::default();
    let outcome = pump(plan, &disk, &disk, &options, &job).await;
    assert!(matches!(outcome, Err(TransferError::PlanBrokeOff)));
}

#[tokio::test]
async fn transfers_share_a_budget_that_is_smaller_than_one_of_them_wants() {
    let budget = Budget::new(12 * PAGE);
    let options = PumpOptions {
        depth: 32,
        ..options(&budget, Destination::Fresh)
    };
    let disks: Vec<(Disk, Disk)> = (0..4)
        .map(|_| (Disk::new(pattern(64)), Disk::new(vec![0; 64 * PAGE])))
        .collect();
    let all = disks.iter().map(|(source, sink)| {
        run(
            vec![Extent::data(0..64 * PAGE as u64)],
            source,
            sink,
            &options,
        )
    });
    for outcome in futures_util::future::join_all(all).await {
        outcome.expect("transfer");
    }
    for (source, sink) in &disks {
        assert_eq!(source.content(), sink.content());
    }
    assert!(budget.peak() <= budget.capacity());
    assert_eq!(budget.allocated(), 0);
}

#[test]
fn errors_of_devices_mean_what_errors_of_images_mean() {
    let error = BlockError::Io(std::io::Error::from_raw_os_error(libc::EDQUOT));
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert_eq!(
        BlockError::Io(std::io::Error::other("x")).kind(),
        ErrorKind::Io
    );
}

/// A step in a disk's life: bytes written (or zeroed) somewhere.
fn changes() -> impl Strategy<Value = Vec<(usize, usize, bool)>> {
    proptest::collection::vec((0usize..63 * 512, 1usize..9 * 512, any::<bool>()), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn after_a_transfer_the_destination_reads_as_the_source(
        before in changes(),
        after in changes(),
        destination in prop_oneof![
            Just(Destination::Fresh),
            Just(Destination::MayHoldData),
            Just(Destination::Similar),
        ],
        compare_zeros in any::<bool>(),
        read_grain in prop_oneof![Just(1u64), Just(1024), Just(4096)],
        depth in 1usize..20,
        operation_size in prop_oneof![Just(512u64), Just(4096), Just(10_000)],
        zero_grain in prop_oneof![Just(1usize), Just(512), Just(4096)],
        budget_pages in 1usize..8,
    ) {
        // Not a multiple of every grain.
        const SIZE: usize = 63 * 512;
        let apply = |disk: &mut Vec<u8>, steps: &[(usize, usize, bool)], mark: u8| {
            let mut touched = vec![false; SIZE];
            for (step, (at, length, data)) in steps.iter().enumerate() {
                let range = *at..(*at + *length).min(SIZE);
                disk[range.clone()].fill(if *data { mark + step as u8 } else { 0 });
                touched[range].fill(true);
            }
            touched
        };
        let fresh = destination == Destination::Fresh;
        let mut old = vec![0; SIZE];
        apply(&mut old, &before, 1);
        let mut new = if fresh { vec![0; SIZE] } else { old.clone() };
        let touched = apply(&mut new, &after, 100);

        // What a diff would name: every run of touched bytes, cut where it turns to zeros.
        let kind = |at: usize| if new[at] == 0 { ExtentKind::Zero } else { ExtentKind::Data };
        let mut extents: Vec<Extent> = Vec::new();
        for at in (0..SIZE).filter(|at| touched[*at]) {
            match extents.last_mut() {
                Some(last) if last.end() == at as u64 && last.kind == kind(at) => last.length += 1,
                _ => extents.push(Extent { offset: at as u64, length: 1, kind: kind(at) }),
            }
        }

        let budget = Budget::new(budget_pages * 4096);
        let options = PumpOptions {
            depth,
            operation_size,
            compare_zeros,
            zero_grain,
            ..PumpOptions::new(budget.clone(), destination)
        };
        let source = Disk::new(new.clone()).with_grain(read_grain);
        let sink = Disk::new(if fresh { vec![0; SIZE] } else { old });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let stats = runtime.block_on(run(extents, &source, &sink, &options))?;
        prop_assert!(sink.content() == new);
        prop_assert!(budget.peak() <= budget.capacity());
        prop_assert_eq!(budget.allocated(), 0);
        prop_assert!(stats.bytes_written <= stats.bytes_read);
        for call in source.calls() {
            if let Call::Read { offset, length } = call {
                let end = offset + length;
                prop_assert!(offset % read_grain == 0);
                prop_assert!(end % read_grain == 0 || end == SIZE as u64);
            }
        }
    }
}
