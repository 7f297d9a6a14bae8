//! What the child processes of our side do.

use cinderblock::rbd::{self, Image};
use cinderblock::transfer::{
    self, Budget, Destination, Digest, ImageSource, PumpOptions, Recorded, Recorder, TransferError,
    copy_diff,
};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::contenders::Job;
use crate::data::Sites;
use crate::{MEMORY, Result};

/// The default of `backup_max_operations`.
const AT_ONCE: usize = 15;

/// In which manner our side moves what there is.
#[derive(Clone, Copy)]
pub struct Manner {
    pub digested: bool,
    /// Whether the source's object map is believed about what did not change.
    pub believing: bool,
}

/// What the child process of our side does, at once for as many jobs as a worker takes on.
pub async fn ours(jobs: &[Job], manner: Manner) -> Result<()> {
    let sites = Sites::connect().await?;
    let budget = Budget::new(MEMORY);
    let transfers = jobs.iter().map(|job| one(&sites, job, manner, &budget));
    let mut transfers = stream::iter(transfers).buffer_unordered(AT_ONCE);
    while transfers.try_next().await?.is_some() {}
    Ok(())
}

async fn one(sites: &Sites, job: &Job, manner: Manner, budget: &Budget) -> Result<()> {
    let (source, target) = tokio::try_join!(
        sites.source.open(&job.image, Some(&job.to)),
        sites.target.open_rw(&job.image),
    )?;
    match manner.digested {
        true => {
            let source = Recorded::new(&source, &Digests, source.known_size());
            copy(&source, job, &target, manner, budget).await?;
        }
        false => copy(&source, job, &target, manner, budget).await?,
    }
    target.create_snapshot(&job.to).await?;
    source.close().await;
    target.close().await;
    Ok(())
}

/// What the child process does that only reads, and then only writes.
pub async fn raw(job: &Job) -> Result<()> {
    const AT_ONCE: usize = 16;
    const LENGTH: u64 = 4 << 20;
    let sites = Sites::connect().await?;
    let (source, target) = tokio::try_join!(
        sites.source.open(&job.image, Some(&job.to)),
        sites.target.open_rw(&job.image),
    )?;
    let size = source.known_size();
    let memory = Budget::new(usize::try_from(size)? * 2);
    let parts = (0..size).step_by(LENGTH as usize);
    let reads = stream::iter(parts).map(async |at| {
        let buffer = memory.buffer(LENGTH.min(size - at) as usize).await;
        Ok::<_, rbd::Error>((at, source.read(at, buffer).await?))
    });
    let read: Vec<_> = reads.buffered(AT_ONCE).try_collect().await?;
    let writes = read
        .into_iter()
        .map(|(at, buffer)| target.write(at, bytes::Bytes::from_owner(buffer)));
    let mut writes = stream::iter(writes).buffer_unordered(AT_ONCE);
    while writes.try_next().await?.is_some() {}
    drop(writes);
    target.create_snapshot(&job.to).await?;
    source.close().await;
    target.close().await;
    Ok(())
}

/// Takes digests and forgets them: a manifest is one or two small objects.
struct Digests;

impl Recorder for Digests {
    fn seed(&self) -> u64 {
        1
    }

    fn record(&self, _: u64, _: Vec<Digest>) {}
}

async fn copy<S: ImageSource>(
    source: &S,
    job: &Job,
    target: &Image,
    manner: Manner,
    budget: &Budget,
) -> std::result::Result<(), TransferError> {
    let destination = match job.from {
        None => Destination::Fresh,
        Some(_) => Destination::MayHoldData,
    };
    let options = PumpOptions {
        believe_map: manner.believing,
        ..PumpOptions::new(budget.clone(), destination)
    };
    copy_diff(
        source,
        job.from.as_deref(),
        target,
        &options,
        &transfer::Job::default(),
    )
    .await?;
    Ok(())
}
