//! Opening what os-brick has attached.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::unistd::getuid;
use tokio::process::Command;
use tracing::warn;

use super::Error;
use crate::transfer::{Access, Device};

/// How long changing an owner may take.
const CHOWN: Duration = Duration::from_secs(60);

/// A path, and its owner, who is to have it back.
#[derive(Debug)]
pub struct Ownership {
    path: PathBuf,
    owner: u32,
    root_helper: [String; 3],
}

impl Ownership {
    /// Whose a path is.
    pub async fn of(path: &Path, root_helper: [String; 3]) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_owned(),
            owner: owner(path).await?,
            root_helper,
        })
    }

    /// Makes it this process's own, as Cinder does it: with cinder-rootwrap. After an error, too, it
    /// may be: the command may have been given up.
    pub async fn take(&self) -> Result<(), Error> {
        self.chown(getuid().as_raw()).await
    }

    /// Gives it back to its owner.
    pub async fn give_back(self) {
        if let Err(error) = self.chown(self.owner).await
            && owner(&self.path).await.ok() != Some(self.owner)
        {
            warn!(path = %self.path.display(), owner = self.owner, %error, "Cannot give a device back to its owner");
        }
    }

    async fn chown(&self, owner: u32) -> Result<(), Error> {
        let failed = |reason: String| Error::Ownership {
            path: self.path.clone(),
            reason,
        };
        let [program, words @ ..] = &self.root_helper;
        let running = Command::new(program)
            .args(words)
            .arg("chown")
            .arg(owner.to_string())
            .arg(&self.path)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(CHOWN, running)
            .await
            .map_err(|_| failed(format!("{program} does not end")))?
            .map_err(|error| failed(format!("{program}: {error}")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next_back().unwrap_or_default();
        Err(failed(format!("{} {said}", output.status)))
    }
}

async fn owner(path: &Path) -> Result<u32, Error> {
    let known = tokio::fs::metadata(path).await;
    Ok(known.map_err(|error| Error::open(path, &error))?.uid())
}

/// Opens a device; `None` if that is not permitted.
pub async fn open(path: &Path, access: Access) -> Result<Option<Device>, Error> {
    match Device::open(path, access).await {
        Ok(device) => Ok(Some(device)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(Error::open(path, &error)),
    }
}

/// Refuses to read a file that does not hold a volume's whole content, though it begins like one: a
/// qcow2 file that rests on another, or is longer than the volume. Python copies what is there.
pub async fn check_format(device: &Device, format: Option<&str>, size: u64) -> Result<(), Error> {
    if format != Some("qcow2") {
        return Ok(());
    }
    let path = device.path();
    let head = device.head(16).await;
    let head = head.map_err(|error| Error::open(path, &error))?;
    if rests_on_another(&head) {
        return Err(Error::Overlay(path.to_owned()));
    }
    if device.size() > size {
        return Err(Error::TooLong {
            path: path.to_owned(),
            size,
        });
    }
    Ok(())
}

/// Whether the head of a qcow2 file names a backing file: bytes 8 to 15 tell where its name is.
fn rests_on_another(head: &[u8]) -> bool {
    head.starts_with(b"QFI\xfb") && head.iter().skip(8).take(8).any(|byte| *byte != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn helper(words: [&str; 3]) -> [String; 3] {
        words.map(str::to_owned)
    }

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(content: &[u8]) -> Self {
            let name = format!("cinderblock-{}", uuid::Uuid::new_v4());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, content).expect("it is written");
            Self(path)
        }

        fn owner(&self) -> u32 {
            std::fs::metadata(&self.0).expect("it is there").uid()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[tokio::test]
    async fn a_device_is_owned_for_a_while() {
        let scratch = Scratch::new(b"x");
        let owner = match getuid().is_root() {
            true => 4321,
            false => getuid().as_raw(),
        };
        std::os::unix::fs::chown(&scratch.0, Some(owner), None).expect("chown");
        // One that does what it is told, and one that fails all the same.
        let fails = "chown \"$1\" \"$2\"; exit 7";
        for words in [["env", "-u", "NONE"], ["sh", "-c", fails]] {
            let ownership = Ownership::of(&scratch.0, helper(words)).await;
            let ownership = ownership.expect("somebody's");
            let taken = ownership.take().await;
            assert_eq!(taken.is_ok(), words[0] == "env", "{taken:?}");
            assert_eq!(scratch.owner(), getuid().as_raw());
            ownership.give_back().await;
            assert_eq!(scratch.owner(), owner);
        }
    }

    #[tokio::test]
    async fn rights_that_cannot_be_had_are_told() {
        let scratch = Scratch::new(b"x");
        let script = "echo 'not allowed' >&2; exit 99";
        let take = async |words| {
            let ownership = Ownership::of(&scratch.0, helper(words)).await;
            ownership.expect("somebody's").take().await
        };
        let refused = take(["sh", "-c", script]).await;
        let refused = refused.expect_err("refused").to_string();
        assert!(refused.contains("99 not allowed"), "{refused}");
        take(["/nonexistent/sudo", "", ""])
            .await
            .expect_err("no sudo");
    }

    #[tokio::test]
    async fn a_file_that_is_only_part_of_a_volume_is_refused() {
        let mut content = b"QFI\xfb\0\0\0\x03".to_vec();
        content.resize(1000, 0);
        let check = async |content: &[u8], format, size| {
            let scratch = Scratch::new(content);
            let device = Device::open(&scratch.0, Access::Read).await;
            let device = device.expect("it opens");
            check_format(&device, format, size).await
        };
        let qcow2 = Some("qcow2");
        check(&content, qcow2, 1000).await.expect("whole");
        let too_long = check(&content, qcow2, 999).await;
        assert!(matches!(too_long, Err(Error::TooLong { .. })));
        content[15] = 1;
        let overlay = check(&content, qcow2, 1000).await;
        assert!(matches!(overlay, Err(Error::Overlay(_))));
        // A guest may write what it likes into a raw volume.
        check(&content, Some("raw"), 1000).await.expect("raw");
        check(&content, None, 1000).await.expect("a device");
    }

    #[test]
    fn an_overlay_is_known_by_its_head() {
        let mut head = *b"QFI\xfb\0\0\0\x03\0\0\0\0\0\0\0\0";
        assert!(!rests_on_another(&head));
        head[14] = 2;
        assert!(rests_on_another(&head));
        head[0] = 0;
        assert!(!rests_on_another(&head));
        assert!(!rests_on_another(b""));
    }
}
