//! What a backup costs beside its data, and whether that grows with what else there is.
//!
//! Needs the two clusters of the lab (`LAB_VOLUMES_CEPH_CONF`, `LAB_BACKUPS_CEPH_CONF`). Options after `--`:
//! `--rounds N` (10), `--images N` (2000; other images in the backup pool), `--snapshots N` (100; other
//! snapshots of the volume).
//!
//! A volume with one block of data is backed up, backed up again, looked up and deleted. Beside the unchanged
//! increment the two snapshots that it takes are taken alone. All of it is done in a pool and on a volume with
//! nothing else, among many others, and once more without them: what is between the first and the last is how
//! much the machine has changed meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cinderblock::rbd::{Cluster, ClusterOptions, Features, ImageOptions, Pool};
use cinderblock::transfer::{Budget, Job};
use cinderblock::vault::{
    BackupPlan, BackupRecord, BackupSpec, Engine, ImageFormat, Parent, Vault, Volume,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const POOL: &str = "backups";
const AT_ONCE: usize = 16;

#[tokio::main]
async fn main() -> Result<()> {
    let (rounds, images, snapshots) = (
        option("--rounds", 10)?,
        option("--images", 2000)?,
        option("--snapshots", 100)?,
    );
    let bench = Bench::set_up().await?;
    // The first connects, and librbd loads what it needs.
    bench.round(&mut Times::new()).await?;
    let alone = bench.rounds(rounds).await?;
    bench.populate(images).await?;
    let crowded = bench.rounds(rounds).await?;
    bench.depopulate(images).await?;
    bench.take_snapshots(snapshots).await?;
    let aged = bench.rounds(rounds).await?;
    bench.remove_snapshots(snapshots).await?;
    let again = bench.rounds(rounds).await?;
    println!(
        "| step | ms, alone | ratio, {images} images in the pool | ratio, {snapshots} snapshots of the volume | ratio, alone again |"
    );
    println!("|---|---|---|---|---|");
    for (step, times) in &alone {
        let base = median(times);
        let ratio = |other: &Times| median(&other[step]) / base;
        println!(
            "| {step} | {base:.0} | {:.2} | {:.2} | {:.2} |",
            ratio(&crowded),
            ratio(&aged),
            ratio(&again)
        );
    }
    bench.pool.remove_image("bench-alone").await?;
    bench.volumes.remove_image("bench-volume").await?;
    Ok(())
}

fn option(name: &str, default: usize) -> Result<usize> {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name);
    let value = at.and_then(|at| arguments.get(at + 1));
    Ok(value.map_or(Ok(default), |text| text.parse())?)
}

/// Milliseconds that each step took.
type Times = BTreeMap<&'static str, Vec<f64>>;

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

struct Bench {
    vault: Vault,
    volumes: Pool,
    pool: Pool,
    source: Volume,
}

impl Bench {
    async fn set_up() -> Result<Self> {
        let options = |variable: &str| -> Result<ClusterOptions> {
            let conf = std::env::var_os(variable).ok_or(format!("{variable} is not set"))?;
            Ok(ClusterOptions::new("admin").conf_file(PathBuf::from(conf)))
        };
        let (near, far) = (
            options("LAB_VOLUMES_CEPH_CONF")?,
            options("LAB_BACKUPS_CEPH_CONF")?,
        );
        let volumes = Cluster::connect(near).await?.pool("volumes").await?;
        let pool = Cluster::connect(far.clone()).await?.pool(POOL).await?;
        let engine = Engine {
            budget: Budget::new(64 << 20),
            depth: 16,
            scanners: 8,
            trust_object_map: false,
            checkpoint_interval: Duration::from_secs(30),
            restore_damaged: false,
            chunk_size: 128 << 20,
            zero_excess: true,
        };
        let vault = Vault::new(far, POOL.to_owned(), ImageFormat::default(), engine);
        volumes
            .create_image("bench-volume", &image(1 << 30))
            .await?;
        pool.create_image("bench-alone", &image(1 << 30)).await?;
        let data = volumes.open_rw("bench-volume").await?;
        data.write(0, vec![7; 65536].into()).await?;
        data.close().await;
        let source = Volume {
            pool: volumes.clone(),
            image: "bench-volume".to_owned(),
        };
        Ok(Self {
            vault,
            volumes,
            pool,
            source,
        })
    }

    async fn rounds(&self, rounds: usize) -> Result<Times> {
        let mut times = Times::new();
        for _ in 0..rounds {
            self.round(&mut times).await?;
        }
        Ok(times)
    }

    async fn round(&self, times: &mut Times) -> Result<()> {
        let volume = Uuid::new_v4();
        let full = timed(times, "full backup", self.back_up(volume, None)).await?;
        let next = timed(
            times,
            "unchanged increment",
            self.back_up(volume, Some(&full)),
        )
        .await?;
        self.two_snapshots(times).await?;
        for (step, plan, sole) in [
            ("deletion of an increment", &next, false),
            ("deletion of a full backup", &full, true),
        ] {
            let record = record(volume, plan, sole);
            let finding = self.vault.find_restore_point(&record);
            timed(times, "looking a restore point up", finding).await?;
            let deleting = async {
                // As the worker does it.
                let (deleted, released) = tokio::join!(
                    self.vault.delete(&record),
                    self.vault.release_source(&self.source, plan.backup)
                );
                deleted.and(released)
            };
            timed(times, step, deleting).await?;
        }
        Ok(())
    }

    async fn back_up(
        &self,
        volume: Uuid,
        parent: Option<&BackupPlan>,
    ) -> std::result::Result<BackupPlan, cinderblock::vault::Error> {
        let spec = BackupSpec {
            again: false,
            backup: Uuid::new_v4().into(),
            volume: volume.into(),
            pool: POOL.to_owned(),
            parent: parent.map(|parent| Parent {
                backup: parent.backup,
                base: parent.base,
            }),
        };
        let now = chrono::Utc::now();
        let plan = self.vault.plan_backup(&spec, &self.source, now).await?;
        let job = Job::default();
        self.vault.store(&plan, &self.source, &job).await?;
        self.vault.write_metadata(POOL, plan.backup, "{}").await?;
        Ok(plan)
    }

    async fn two_snapshots(&self, times: &mut Times) -> Result<()> {
        let images = (
            self.volumes.open_rw("bench-volume").await?,
            self.pool.open_rw("bench-alone").await?,
        );
        let taking = async {
            images.0.create_snapshot("alone").await?;
            images.1.create_snapshot("alone").await
        };
        timed(times, "its two snapshots alone", taking).await?;
        for image in [images.0, images.1] {
            image.remove_snapshot("alone").await?;
            image.close().await;
        }
        Ok(())
    }

    async fn populate(&self, count: usize) -> Result<()> {
        let options = image(1 << 30);
        let making = stream::iter(0..count).map(async |number| {
            let name = crowd(number);
            self.pool.create_image(&name, &options).await
        });
        Ok(making.buffer_unordered(AT_ONCE).try_collect().await?)
    }

    async fn depopulate(&self, count: usize) -> Result<()> {
        let removing = stream::iter(0..count).map(async |number| {
            let name = crowd(number);
            self.pool.remove_image(&name).await
        });
        Ok(removing.buffer_unordered(AT_ONCE).try_collect().await?)
    }

    async fn take_snapshots(&self, count: usize) -> Result<()> {
        let image = self.volumes.open_rw("bench-volume").await?;
        for number in 0..count {
            image.create_snapshot(&crowd(number)).await?;
        }
        image.close().await;
        Ok(())
    }

    async fn remove_snapshots(&self, count: usize) -> Result<()> {
        let image = self.volumes.open_rw("bench-volume").await?;
        for number in 0..count {
            image.remove_snapshot(&crowd(number)).await?;
        }
        image.close().await;
        Ok(())
    }
}

fn record(volume: Uuid, plan: &BackupPlan, sole: bool) -> BackupRecord {
    BackupRecord {
        backup: plan.backup,
        volume: volume.into(),
        pool: None,
        base: Some(plan.base),
        of_snapshot: false,
        sole,
    }
}

fn crowd(number: usize) -> String {
    format!("bench-other-{number}")
}

fn image(size: u64) -> ImageOptions {
    let features =
        Features::LAYERING | Features::EXCLUSIVE_LOCK | Features::OBJECT_MAP | Features::FAST_DIFF;
    ImageOptions {
        size,
        features: Some(features),
        ..ImageOptions::default()
    }
}

async fn timed<T, E>(
    times: &mut Times,
    step: &'static str,
    doing: impl Future<Output = std::result::Result<T, E>>,
) -> std::result::Result<T, E> {
    let begun = Instant::now();
    let done = doing.await;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    times.entry(step).or_default().push(took);
    done
}
