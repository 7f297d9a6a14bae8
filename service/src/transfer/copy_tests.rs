//! Whole copies between files and disks in memory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use proptest::prelude::*;

use super::memory::Disk;
use super::{
    Access, BlockSink, BlockSource, Budget, Destination, Device, Job, PumpOptions, Stats,
    TransferError, copy_whole,
};

/// A file that goes when this does.
struct Scratch(PathBuf);

impl Scratch {
    fn new(content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("cinderblock-{}", uuid::Uuid::new_v4()));
        fs::write(&path, content).expect("it is written");
        Self(path)
    }

    async fn open(&self, access: Access) -> Device {
        Device::open(&self.0, access).await.expect("it opens")
    }

    fn content(&self) -> Vec<u8> {
        fs::read(&self.0).expect("it is read")
    }

    /// Bytes that the file takes on its disk.
    fn allocated(&self) -> u64 {
        fs::metadata(&self.0).expect("it is there").blocks() * 512
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn options(destination: Destination) -> PumpOptions {
    PumpOptions {
        operation_size: 16 << 10,
        ..PumpOptions::new(Budget::new(1 << 20), destination)
    }
}

async fn copy(
    source: &impl BlockSource,
    target: &impl BlockSink,
    options: &PumpOptions,
) -> Result<Stats, TransferError> {
    let job = Job::default();
    let stats = copy_whole(source, target, options, &job).await?;
    assert_eq!(job.progress.done(), job.progress.planned());
    assert!(options.budget.peak() <= options.budget.capacity());
    Ok(stats)
}

fn noise(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at * 31 / 7 % 255 + 1) as u8)
        .collect()
}

#[tokio::test]
async fn a_file_becomes_another_to_the_byte() {
    let mut content = noise(300_001);
    content[70_000..210_000].fill(0);
    let (source, target) = (Scratch::new(&content), Scratch::new(&noise(5)));
    let to = target.open(Access::Write).await;
    let to = to.sized(300_001).await.expect("a file grows");
    let from = source.open(Access::Read).await;
    copy(&from, &to, &options(Destination::MayHoldData))
        .await
        .expect("copied");
    from.close().await;
    to.close().await;
    assert!(target.content() == content);
}

#[tokio::test]
async fn zeros_give_the_space_of_old_data_back() {
    let (source, target) = (
        Scratch::new(&vec![0; 4 << 20]),
        Scratch::new(&noise(8 << 20)),
    );
    let (from, to) = (
        source.open(Access::Read).await,
        target.open(Access::Write).await,
    );
    let stats = copy(&from, &to, &options(Destination::MayHoldData)).await;
    assert_eq!(stats.expect("copied").bytes_discarded, 8 << 20);
    assert!(target.content().iter().all(|byte| *byte == 0));
    assert!(target.allocated() < 1 << 20, "{}", target.allocated());
}

#[tokio::test]
async fn what_is_behind_a_short_source_is_left_alone_if_it_shall_be() {
    let source = Scratch::new(&noise(10_000));
    let old = vec![0xaa; 50_000];
    for zero_excess in [true, false] {
        let target = Scratch::new(&old);
        let (from, to) = (
            source.open(Access::Read).await,
            target.open(Access::Write).await,
        );
        let options = PumpOptions {
            zero_excess,
            ..options(Destination::MayHoldData)
        };
        copy(&from, &to, &options).await.expect("copied");
        let mut expected = noise(10_000);
        expected.resize(50_000, if zero_excess { 0 } else { 0xaa });
        assert!(target.content() == expected, "{zero_excess}");
    }
}

#[tokio::test]
async fn a_source_that_is_longer_is_cut() {
    let source = Scratch::new(&noise(50_000));
    let sink = Disk::new(vec![0; 20_000]);
    let from = source.open(Access::Read).await;
    let stats = copy(&from, &sink, &options(Destination::Fresh)).await;
    assert_eq!(stats.expect("copied").bytes_read, 20_000);
    assert!(sink.content() == noise(20_000));
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let source = Scratch::new(&noise(50_000));
    let from = source.open(Access::Read).await;
    fs::write(&source.0, noise(100)).expect("it is written");
    let sink = Disk::new(vec![0; 50_000]);
    let error = copy(&from, &sink, &options(Destination::Fresh)).await;
    let error = error.expect_err("bytes are missing").to_string();
    assert!(error.contains("of the source"), "{error}");
}

#[tokio::test]
async fn what_is_no_device_is_not_opened() {
    let folder = Device::open(&std::env::temp_dir(), Access::Read).await;
    assert!(folder.is_err());
    let terminal = Device::open("/dev/null".as_ref(), Access::Write).await;
    let error = terminal.expect_err("not that").to_string();
    assert!(
        error.contains("neither a block device nor a file"),
        "{error}"
    );
    let missing = Device::open("/no/such/device".as_ref(), Access::Read).await;
    let kind = missing.expect_err("it is not there").kind();
    assert_eq!(kind, std::io::ErrorKind::NotFound);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_content_over_any_other(
        content in proptest::collection::vec((0usize..9000, any::<bool>()), 0..12),
        old in 0usize..60_000,
        similar in any::<bool>(),
    ) {
        let content: Vec<u8> = content
            .into_iter()
            .flat_map(|(length, data)| if data { noise(length) } else { vec![0; length] })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let (source, target) = (Scratch::new(&content), Scratch::new(&noise(old)));
        runtime.block_on(async {
            let from = source.open(Access::Read).await;
            let to = target.open(Access::Write).await;
            let to = to.sized(content.len() as u64).await.expect("sized");
            let destination = match similar {
                true => Destination::Similar,
                false => Destination::MayHoldData,
            };
            copy(&from, &to, &options(destination)).await.expect("copied");
        });
        prop_assert!(target.content() == content);
    }
}
