//! The data that is moved, and whether it arrived.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cinderblock::rbd::{
    Cluster, ClusterOptions, DiffQuery, ErrorKind, Features, Image, ImageOptions, Pool,
};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::Result;
use crate::contenders::Job;

/// Where the configuration files are named.
const SOURCE: &str = "LAB_VOLUMES_CEPH_CONF";
pub const TARGET: &str = "LAB_BACKUPS_CEPH_CONF";

pub const SOURCE_POOL: &str = "volumes";
pub const TARGET_POOL: &str = "backups";

fn conf(variable: &str) -> Result<PathBuf> {
    let path =
        std::env::var_os(variable).ok_or(format!("{variable} is not set: run `make bench`"))?;
    Ok(path.into())
}

pub struct Sites {
    pub source_conf: PathBuf,
    pub target_conf: PathBuf,
    pub source: Pool,
    pub target: Pool,
}

impl Sites {
    pub async fn connect() -> Result<Self> {
        Self::of(conf(SOURCE)?, conf(TARGET)?).await
    }

    /// Both in the source's cluster.
    pub async fn within_one(&self) -> Result<Self> {
        Self::of(self.source_conf.clone(), self.source_conf.clone()).await
    }

    async fn of(source_conf: PathBuf, target_conf: PathBuf) -> Result<Self> {
        let pool = async |conf: &Path, pool: &str| {
            let options = ClusterOptions::new("admin").conf_file(conf);
            Cluster::connect(options).await?.pool(pool).await
        };
        Ok(Self {
            source: pool(&source_conf, SOURCE_POOL).await?,
            target: pool(&target_conf, TARGET_POOL).await?,
            source_conf,
            target_conf,
        })
    }
}

/// Clients that are slowed down until this is dropped.
pub struct SlowedDown(Vec<(PathBuf, String)>);

/// Has each message of clients that start from now on wait for up to so many milliseconds.
pub fn slow_down(sites: &Sites, latency: u64) -> Result<SlowedDown> {
    let mut slowed = SlowedDown(Vec::new());
    if latency == 0 {
        return Ok(slowed);
    }
    let seconds = latency as f64 / 1000.0;
    let delay = format!(
        "\n[client]\nms_inject_delay_type = osd\nms_inject_delay_probability = 1\n\
         ms_inject_delay_max = {seconds}\n"
    );
    for conf in [&sites.source_conf, &sites.target_conf] {
        let original = fs::read_to_string(conf)?;
        fs::write(conf, format!("{original}{delay}"))?;
        slowed.0.push((conf.clone(), original));
    }
    Ok(slowed)
}

impl Drop for SlowedDown {
    fn drop(&mut self) {
        for (conf, original) in &self.0 {
            if let Err(error) = fs::write(conf, original) {
                eprintln!("{} still slows clients down: {error}", conf.display());
            }
        }
    }
}

/// Numbers that look random and are the same in every run.
pub struct Noise(pub u64);

impl Noise {
    fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn bytes(&mut self, length: u64) -> bytes::Bytes {
        let words = (0..length / 8).flat_map(|_| self.number().to_le_bytes());
        words.collect::<Vec<u8>>().into()
    }
}

fn image_options(size: u64) -> ImageOptions {
    ImageOptions {
        size,
        features: Some(
            Features::LAYERING
                | Features::EXCLUSIVE_LOCK
                | Features::OBJECT_MAP
                | Features::FAST_DIFF,
        ),
        ..ImageOptions::default()
    }
}

pub async fn make(pool: &Pool, name: &str, size: u64) -> Result<Image> {
    destroy(pool, name).await?;
    pool.create_image(name, &image_options(size)).await?;
    Ok(pool.open_rw(name).await?)
}

pub async fn destroy(pool: &Pool, name: &str) -> Result<()> {
    match pool.open_rw(name).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        image => {
            let image = image?;
            for snapshot in image.snapshots().await? {
                image.remove_snapshot(&snapshot.name).await?;
            }
            image.close().await;
        }
    }
    Ok(pool.remove_image(name).await?)
}

pub async fn scatter(image: &Image, noise: &mut Noise, count: u64, length: u64) -> Result<()> {
    let places = image.known_size() / (64 << 10);
    for _ in 0..count {
        let place = noise.number() % places * (64 << 10);
        image.write(place, noise.bytes(length)).await?;
    }
    Ok(())
}

/// Compares both sides, object by object where either of them has one.
pub async fn verify(sites: &Sites, job: &Job) -> Result<()> {
    let source = sites.source.open(&job.image, Some(&job.to)).await?;
    let target = sites.target.open(&job.image, Some(&job.to)).await?;
    let size = source.known_size();
    if target.known_size() != size {
        return Err("sizes differ".into());
    }
    if target.stripe_period() != source.stripe_period() {
        return Err("object sizes differ".into());
    }
    let mut places = objects(&source).await?;
    places.append(&mut objects(&target).await?);
    let different = stream::iter(places)
        .map(|at| {
            let length = source.stripe_period().min(size - at) as usize;
            let (source, target) = (&source, &target);
            async move {
                let (left, right) = tokio::try_join!(
                    source.read(at, vec![0; length]),
                    target.read(at, vec![0; length])
                )?;
                Ok::<_, cinderblock::rbd::Error>((left != right).then_some(at))
            }
        })
        .buffer_unordered(8)
        .try_fold(None, async |first: Option<u64>, at| Ok(first.or(at)))
        .await?;
    source.close().await;
    target.close().await;
    different.map_or(Ok(()), |at| {
        Err(format!("{} differs at {at}", job.image).into())
    })
}

/// Where the objects of an image start, of those that exist.
async fn objects(image: &Image) -> Result<BTreeSet<u64>> {
    let query = DiffQuery {
        from: None,
        range: 0..image.known_size(),
        include_parent: true,
        whole_objects: true,
    };
    let found = Arc::new(Mutex::new(BTreeSet::new()));
    let collect = Arc::clone(&found);
    let step = image.stripe_period();
    image
        .diff(query, move |change| {
            if let Ok(mut found) = collect.lock() {
                let last = change.offset + change.length;
                found.extend((change.offset / step..last.div_ceil(step)).map(|at| at * step));
            }
            ControlFlow::Continue(())
        })
        .await?;
    let found = found.lock().map_err(|_| "a walk broke off")?.clone();
    Ok(found)
}
