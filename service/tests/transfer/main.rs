//! Transfers between two real clusters, compared byte by byte.

#[path = "../ceph_lab/mod.rs"]
mod ceph_lab;
mod chains;
mod clones;
mod copies;
mod devices;
mod hints;

use bytes::Bytes;
use ceph_lab::{Scratch, Site, assert_same, backups, content, usual_features, volumes};
use cinderblock::rbd::{Image, ImageOptions};
use cinderblock::transfer::{
    Budget, Destination, Job, PumpOptions, Stats, TransferError, copy_diff,
};

fn options(destination: Destination) -> PumpOptions {
    PumpOptions::new(Budget::new(64 << 20), destination)
}

async fn try_copy(
    source: &Image,
    since: Option<&str>,
    target: &Image,
    to: Destination,
) -> Result<Stats, TransferError> {
    let job = Job::default();
    let options = options(to);
    let stats = copy_diff(source, since, target, &options, &job).await?;
    assert_eq!(job.progress.done(), job.progress.planned());
    assert!(options.budget.peak() <= options.budget.capacity());
    assert_eq!(options.budget.allocated(), 0);
    Ok(stats)
}

async fn copy(source: &Image, since: Option<&str>, target: &Image, to: Destination) -> Stats {
    try_copy(source, since, target, to).await.expect("transfer")
}

async fn write(image: &Image, offset: u64, data: Bytes) {
    image.write(offset, data).await.expect("write");
}

async fn zero(image: &Image, offset: u64, length: u64) {
    image.write_zeroes(offset, length).await.expect("zero");
}

/// A source on one cluster, and on the other the image that follows it.
struct Chain {
    source: Image,
    target: Image,
    last: Option<String>,
    steps: usize,
    _names: (Scratch, Scratch),
}

impl Chain {
    async fn new(options: &ImageOptions) -> Self {
        let (volumes, backups) = (volumes().await, backups().await);
        let (source_name, source) = volumes.image(options).await;
        Self::of(source_name, source, &backups).await
    }

    async fn usual(size: u64) -> Self {
        Self::new(&ImageOptions {
            size,
            features: Some(usual_features()),
            ..ImageOptions::default()
        })
        .await
    }

    async fn of(source_name: Scratch, source: Image, backups: &Site) -> Self {
        let (target_name, target) = backups.usual_image(0).await;
        Self {
            source,
            target,
            last: None,
            steps: 0,
            _names: (source_name, target_name),
        }
    }

    /// Takes a snapshot, moves what changed since the last, and compares everything.
    async fn step(&mut self) -> Stats {
        let snapshot = format!("step {}", self.steps);
        self.steps += 1;
        self.source
            .create_snapshot(&snapshot)
            .await
            .expect("snapshot");
        let now = self.source.open_at(&snapshot).await.expect("open");
        self.target.resize(now.known_size()).await.expect("resize");
        let to = match self.last {
            None => Destination::Fresh,
            Some(_) => Destination::MayHoldData,
        };
        let stats = copy(&now, self.last.as_deref(), &self.target, to).await;
        assert_same(&content(&now).await, &content(&self.target).await);
        now.close().await;
        self.last = Some(snapshot);
        stats
    }

    /// As Cinder does it when a volume is reverted to a snapshot: nobody else has it open by then,
    /// and whoever wrote to it last would not give up its lock for that.
    async fn roll_back(&mut self, snapshot: &str) {
        let name = &self._names.0;
        let volumes = volumes().await;
        let unlocked = volumes.pool.open_rw(&name.name).await.expect("it opens");
        std::mem::replace(&mut self.source, unlocked).close().await;
        let at = format!("{}@{snapshot}", name.spec);
        volumes.rbd(&["snap", "rollback", "--no-progress", &at]);
        self.source.size().await.expect("size");
    }
}
