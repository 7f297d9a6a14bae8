//! What tests on real clusters share: connections, images that go away by themselves, contents.

// Each test crate compiles this file for itself and uses its own part of it.
#![allow(dead_code)]

pub mod loop_device;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use cinderblock::rbd::{Cluster, ClusterOptions, Features, Image, ImageOptions, Pool};

/// One MiB.
pub const MIB: u64 = 1 << 20;

/// What Cinder gives its images.
pub fn usual_features() -> Features {
    Features::LAYERING | Features::EXCLUSIVE_LOCK | Features::OBJECT_MAP | Features::FAST_DIFF
}

/// A cluster of the lab and one of its pools.
pub struct Site {
    pub conf: PathBuf,
    pub cluster: Cluster,
    pub pool: Pool,
}

/// The cluster that holds volumes.
pub async fn volumes() -> Site {
    site("LAB_VOLUMES_CEPH_CONF", "volumes").await
}

/// The cluster that holds backups.
pub async fn backups() -> Site {
    site("LAB_BACKUPS_CEPH_CONF", "backups").await
}

/// The path of a configuration file that the lab names.
pub fn conf(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set: run `make test`"))
        .into()
}

async fn site(variable: &str, pool: &str) -> Site {
    let conf = conf(variable);
    let cluster = Cluster::connect(ClusterOptions::new("admin").conf_file(&conf))
        .await
        .expect("the lab's cluster answers");
    let pool = cluster.pool(pool).await.expect("the lab's pool exists");
    Site {
        conf,
        cluster,
        pool,
    }
}

/// Runs the `rbd` or `ceph` tool on a cluster.
pub fn tool(program: &str, conf: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .arg("--conf")
        .arg(conf)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A name that no other test uses.
pub fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "test-{prefix}-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// An image's name; the image goes when this does, with all its snapshots.
pub struct Scratch {
    conf: PathBuf,
    /// `pool/image`, as the tools want it.
    pub spec: String,
    /// The image's name in its pool.
    pub name: String,
}

impl Site {
    /// A name for an image that the test will make.
    pub fn scratch(&self, prefix: &str) -> Scratch {
        let name = unique(prefix);
        Scratch {
            conf: self.conf.clone(),
            spec: format!("{}/{name}", self.pool.name()),
            name,
        }
    }

    /// Makes an image and opens it for writing.
    pub async fn image(&self, options: &ImageOptions) -> (Scratch, Image) {
        let scratch = self.scratch("image");
        self.pool
            .create_image(&scratch.name, options)
            .await
            .expect("image is created");
        let image = self.pool.open_rw(&scratch.name).await.expect("it opens");
        (scratch, image)
    }

    /// Makes an image of the usual kind.
    pub async fn usual_image(&self, size: u64) -> (Scratch, Image) {
        self.image(&ImageOptions {
            size,
            features: Some(usual_features()),
            ..ImageOptions::default()
        })
        .await
    }

    /// Makes an image that the product would not make, by the `rbd` tool's options, and opens it for
    /// writing.
    pub async fn image_laid_out(&self, size: u64, layout: &[&str]) -> (Scratch, Image) {
        let scratch = self.scratch("image");
        let size = format!("{size}B");
        let features = "layering,exclusive-lock,object-map,fast-diff";
        let create = ["create", "--size", &size, "--image-feature", features];
        self.rbd(&[&create, layout, &[scratch.spec.as_str()]].concat());
        let image = self.pool.open_rw(&scratch.name).await.expect("it opens");
        (scratch, image)
    }

    pub fn rbd(&self, arguments: &[&str]) -> String {
        tool("rbd", &self.conf, arguments)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Best effort: a test that failed half-way may have left less than this expects.
        for verb in [["snap", "purge"].as_slice(), ["rm"].as_slice()] {
            let _ = Command::new("rbd")
                .arg("--conf")
                .arg(&self.conf)
                .args(verb)
                .args(["--no-progress", &self.spec])
                .output();
        }
    }
}

/// Numbers that look random and are the same in every run.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    pub fn bytes(&mut self, length: u64) -> Bytes {
        let mut bytes = Vec::with_capacity(length as usize + 8);
        while (bytes.len() as u64) < length {
            bytes.extend_from_slice(&self.number().to_le_bytes());
        }
        bytes.truncate(length as usize);
        bytes.into()
    }
}

/// Everything that an image holds.
pub async fn content(image: &Image) -> Vec<u8> {
    let size = image.size().await.expect("size");
    let mut content = Vec::with_capacity(size as usize);
    while (content.len() as u64) < size {
        let offset = content.len() as u64;
        let length = (4 * MIB).min(size - offset);
        let part = image
            .read(offset, vec![0u8; length as usize])
            .await
            .expect("read");
        content.extend_from_slice(&part);
    }
    content
}

/// Asserts that two contents are the same without printing them.
pub fn assert_same(left: &[u8], right: &[u8]) {
    assert_eq!(left.len(), right.len(), "lengths differ");
    if let Some(at) = (0..left.len()).find(|at| left[*at] != right[*at]) {
        let count = (0..left.len()).filter(|at| left[*at] != right[*at]).count();
        panic!("{count} bytes differ, the first at {at}");
    }
}
