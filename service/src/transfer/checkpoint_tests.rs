//! Transfers that are broken off, and go on from what was noted of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use super::memory::{Call, Disk, Fault};
use super::{
    BlockError, Budget, Destination, Digest, GRAIN, Job, PumpOptions, Recorded, Recorder, Stats,
    TransferError, copy_whole,
};

const GRAINS: u64 = 96;
const UNREADABLE: u64 = 61;

/// Notes digests in memory, and looks whether what they are of is in the sink by then.
struct Notes<'a> {
    sink: &'a Disk,
    taken: Mutex<BTreeMap<u64, Digest>>,
    marked: Mutex<BTreeMap<u64, Digest>>,
    noted: Mutex<BTreeMap<u64, Digest>>,
}

impl<'a> Notes<'a> {
    fn new(sink: &'a Disk) -> Self {
        Self {
            sink,
            taken: Mutex::default(),
            marked: Mutex::default(),
            noted: Mutex::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panicked")
}

impl Recorder for Notes<'_> {
    fn seed(&self) -> u64 {
        3
    }

    fn record(&self, first: u64, digests: Vec<Digest>) {
        lock(&self.taken).extend((first..).zip(digests));
    }

    async fn has(&self, mut grains: Range<u64>) -> Result<bool, BlockError> {
        Ok(grains.all(|grain| lock(&self.noted).contains_key(&grain)))
    }

    fn wants_checkpoint(&self) -> bool {
        lock(&self.taken).len() >= 8
    }

    fn mark(&self) {
        lock(&self.marked).append(&mut lock(&self.taken));
    }

    async fn checkpoint(&self) -> Result<(), BlockError> {
        let (written, calls) = (self.sink.content(), self.sink.calls());
        let flushed = calls.iter().rposition(|call| *call == Call::Flush);
        let safe = &calls[..flushed.expect("it is flushed")];
        for (grain, digest) in std::mem::take(&mut *lock(&self.marked)) {
            let at = (grain * GRAIN) as usize;
            let found = Digest::of(&written[at..at + GRAIN as usize], self.seed());
            assert_eq!(found, digest, "grain {grain} is not written");
            let writes = |call: &Call| match call {
                Call::Write { offset, length } => {
                    (*offset..offset + length).contains(&(grain * GRAIN))
                }
                _ => false,
            };
            let empty = digest == Digest::ZEROS;
            assert!(
                empty || safe.iter().any(writes),
                "grain {grain} is not safe"
            );
            lock(&self.noted).insert(grain, digest);
        }
        Ok(())
    }
}

async fn copy(source: &Disk, notes: &Notes<'_>) -> Result<Stats, TransferError> {
    let options = PumpOptions {
        operation_size: 2 * GRAIN,
        ..PumpOptions::new(Budget::new(8 << 20), Destination::Fresh)
    };
    let job = Job::default();
    let source = Recorded::new(source, notes, GRAINS * GRAIN);
    copy_whole(&source, notes.sink, &options, &job).await
}

#[tokio::test]
async fn only_what_was_not_noted_is_moved_again() {
    let mut content: Vec<u8> = (0..GRAINS * GRAIN)
        .map(|at| (at / 7 % 255 + 1) as u8)
        .collect();
    // Steps that write nothing end before those that were begun before them.
    for grain in (3..GRAINS).step_by(3) {
        content[(grain * GRAIN) as usize..((grain + 1) * GRAIN) as usize].fill(0);
    }
    for grain in [20, 21, 50, 51] {
        content[(grain * GRAIN) as usize..((grain + 1) * GRAIN) as usize].fill(0);
    }
    let broken = Disk::new(content.clone()).with_fault(UNREADABLE * GRAIN, Fault::Unreadable);
    let sink = Disk::new(vec![0; content.len()]);
    let notes = Notes::new(&sink);
    copy(&broken, &notes).await.expect_err("unreadable");
    let noted = lock(&notes.noted).len() as u64;
    assert!((8..=UNREADABLE).contains(&noted), "{noted}");

    // Nobody notes any more what was moved before that was not noted then.
    *lock(&notes.taken) = BTreeMap::new();
    *lock(&notes.marked) = BTreeMap::new();
    let stats = copy(&Disk::new(content.clone()), &notes)
        .await
        .expect("copied");
    assert_eq!(stats.bytes_unchanged, noted * GRAIN);
    assert_eq!(stats.bytes_read, (GRAINS - noted) * GRAIN);
    assert_eq!(sink.content(), content);
}
