//! A block device over a file, for tests that run as root.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file and the loop device that shows it; both go when this does.
pub struct LoopDevice {
    file: PathBuf,
    device: PathBuf,
}

impl LoopDevice {
    pub fn new(content: &[u8]) -> Self {
        let file = std::env::temp_dir().join(super::unique("loop"));
        std::fs::write(&file, content).expect("it is written");
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&file)
            .output();
        let made = made.expect("losetup runs");
        assert!(made.status.success(), "{made:?}");
        let device = String::from_utf8_lossy(&made.stdout).trim().into();
        Self { file, device }
    }

    /// The device's path.
    pub fn path(&self) -> &Path {
        &self.device
    }

    /// What it holds.
    pub fn content(&self) -> Vec<u8> {
        std::fs::read(&self.device).expect("it is read")
    }

    /// Bytes that its file takes.
    pub fn allocated(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(&self.file).expect("it is there").blocks() * 512
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.device)
            .output();
        let _ = std::fs::remove_file(&self.file);
    }
}
