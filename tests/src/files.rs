//! The lab's volumes that are not in Ceph: a file each, which a loop device shows while it is attached.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::process::Command;

use crate::lab::run;
use crate::{Content, Lab};

/// The folder that holds them.
#[derive(Clone)]
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// Those of a lab that was brought up with `--devices`.
    pub fn new(lab: &Lab) -> Result<Self> {
        Ok(Self {
            folder: lab.variable("LAB_VOLUME_FILES")?.into(),
        })
    }

    fn path(&self, volume: &str) -> PathBuf {
        self.folder.join(format!("volume-{volume}"))
    }

    /// Writes `data` into a volume that nobody uses.
    pub fn write(&self, volume: &str, offset: u64, data: &[u8]) -> Result<()> {
        let path = self.path(volume);
        let file = OpenOptions::new().write(true).open(&path);
        let file = file.with_context(|| format!("{path:?}"))?;
        file.write_all_at(data, offset)?;
        Ok(file.sync_all()?)
    }

    /// Reads a part of a volume.
    pub fn read(&self, volume: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        let file = fs::File::open(self.path(volume))?;
        let mut data = vec![0; length];
        file.read_exact_at(&mut data, offset)?;
        Ok(data)
    }

    /// What a volume holds.
    pub fn content(&self, volume: &str) -> Result<Content> {
        Content::of_file(&self.path(volume), u64::MAX)
    }

    /// The same of its first bytes.
    pub fn content_of_first(&self, volume: &str, bytes: u64) -> Result<Content> {
        Content::of_file(&self.path(volume), bytes)
    }

    /// Bytes that a volume takes on its disk.
    pub fn used(&self, volume: &str) -> Result<u64> {
        Ok(fs::metadata(self.path(volume))?.blocks() * 512)
    }

    /// The names of all files, temporary volumes and snapshots included.
    pub fn names(&self) -> Result<Vec<String>> {
        let names = fs::read_dir(&self.folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    /// The files that are attached to this machine.
    pub async fn attached(&self) -> Result<Vec<String>> {
        let listed = run(Command::new("losetup").args(["--json", "--list"])).await?;
        if listed.trim().is_empty() {
            return Ok(Vec::new());
        }
        let listed: Value = serde_json::from_str(&listed)?;
        let devices = listed["loopdevices"].as_array().context("no list")?;
        let files = devices.iter().filter_map(|device| {
            let file = device["back-file"].as_str()?;
            file.starts_with(self.folder.to_str()?)
                .then(|| file.to_owned())
        });
        Ok(files.collect())
    }
}
