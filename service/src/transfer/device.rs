//! Block devices and files.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{SysconfVar, sysconf};
use tokio_util::task::TaskTracker;

use super::block::{BlockError, BlockSink, BlockSource};
use super::budget::Buffer;

/// How long [`Device::close`] waits for calls that were given up.
const DRAIN: Duration = Duration::from_secs(10);

/// What is written where a device cannot zero by itself.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// What a device is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To be copied from.
    Read,
    /// To be copied to, and compared with. Nothing is cut off by opening it.
    Write,
}

/// A block device, or a file that holds the content of one, under the path at which it is attached.
///
/// Calls go to threads of their own, since the kernel may keep them for long; what was given up goes
/// on there until the kernel is done with it.
#[derive(Debug, Clone)]
pub struct Device {
    file: Arc<File>,
    path: PathBuf,
    size: u64,
    is_file: bool,
    calls: TaskTracker,
}

impl Device {
    /// Opens what is at `path`.
    ///
    /// # Errors
    /// Those of the system; `InvalidInput` if it is neither a block device nor a file.
    pub async fn open(path: &Path, access: Access) -> io::Result<Self> {
        let path = path.to_owned();
        blocking(move || {
            let mut options = OpenOptions::new();
            let mut file = match access {
                Access::Read => options.read(true).open(&path)?,
                Access::Write => options.read(true).write(true).open(&path)?,
            };
            let kind = file.metadata()?.file_type();
            if !kind.is_file() && !kind.is_block_device() {
                let reason = format!("{} is neither a block device nor a file", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
            }
            Ok(Self {
                size: file.seek(SeekFrom::End(0))?,
                file: Arc::new(file),
                path,
                is_file: kind.is_file(),
                calls: TaskTracker::new(),
            })
        })
        .await
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes it has, or is dealt with as having.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether it is a file, which ends where nothing but zeros follows.
    pub fn is_file(&self) -> bool {
        self.is_file
    }

    /// Its first bytes; fewer if there are fewer.
    ///
    /// # Errors
    /// Those of the system.
    pub async fn head(&self, length: usize) -> io::Result<Vec<u8>> {
        let file = Arc::clone(&self.file);
        blocking(move || {
            let mut head = vec![0; length];
            let read = file.read_at(&mut head, 0)?;
            head.truncate(read);
            Ok(head)
        })
        .await
    }

    /// The same, for what is to hold `size` bytes: a file becomes as long as that, and what a block
    /// device has beyond is left out.
    ///
    /// # Errors
    /// Those of the system; `StorageFull` if the device is smaller.
    pub async fn sized(&self, size: u64) -> io::Result<Self> {
        if self.is_file && self.size != size {
            let file = Arc::clone(&self.file);
            blocking(move || file.set_len(size)).await?;
        } else if self.size < size {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "{} holds {} bytes, not {size}",
                    self.path.display(),
                    self.size
                ),
            ));
        }
        Ok(Self {
            size,
            ..self.clone()
        })
    }

    /// Closes it, when the last clone of it goes, after whatever is still under way; a device that
    /// does not answer is given up.
    pub async fn close(self) {
        self.calls.close();
        let _ = tokio::time::timeout(DRAIN, self.calls.wait()).await;
    }

    /// Does something with the file on a thread of its own.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> Result<T, BlockError> {
        let file = Arc::clone(&self.file);
        let done = self.calls.spawn_blocking(move || work(&file)).await;
        Ok(done.map_err(io::Error::other)??)
    }
}

impl BlockSource for Device {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, mut buffer: Buffer) -> Result<Buffer, BlockError> {
        self.call(move |file| {
            file.read_exact_at(buffer.as_mut(), offset)?;
            Ok(buffer)
        })
        .await
    }
}

impl BlockSink for Device {
    async fn write_at(&self, offset: u64, data: Bytes) -> Result<(), BlockError> {
        self.call(move |file| file.write_all_at(&data, offset))
            .await
    }

    async fn zero_at(&self, offset: u64, length: u64) -> Result<(), BlockError> {
        self.call(move |file| zero(file, offset, length)).await
    }

    async fn flush(&self) -> Result<(), BlockError> {
        self.call(|file| file.sync_all()).await
    }
}

/// In which the kernel keeps data.
static PAGE: LazyLock<u64> = LazyLock::new(|| {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    page.and_then(|page| page.try_into().ok())
        .unwrap_or(64 << 10)
});

/// Zeros a range; what is no whole page by writing. A kernel before 6.15 that is told to zero the rest of a page
/// may read the whole of it meanwhile, for somebody who writes its beginning, and write that later.
fn zero(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let end = offset.saturating_add(length);
    let pages = offset.next_multiple_of(*PAGE)..end / *PAGE * *PAGE;
    if pages.is_empty() {
        return write_zeros(file, offset, length);
    }
    write_zeros(file, offset, pages.start - offset)?;
    write_zeros(file, pages.end, end - pages.end)?;
    zero_pages(file, pages.start, pages.end - pages.start)
}

/// Zeros a range: by giving its space back, where the kernel promises that it reads as zeros then;
/// else by zeroing without writing; else by writing. Whatever is wrong with the first two, writing
/// tells.
fn zero_pages(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let ways = [
        FallocateFlags::FALLOC_FL_PUNCH_HOLE,
        FallocateFlags::FALLOC_FL_ZERO_RANGE,
    ];
    if let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) {
        for way in ways {
            if fallocate(file, way | keep, offset, length).is_ok() {
                return Ok(());
            }
        }
    }
    write_zeros(file, offset, length)
}

fn write_zeros(file: &File, mut offset: u64, length: u64) -> io::Result<()> {
    let end = offset.saturating_add(length);
    while offset < end {
        let piece = (end - offset).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..piece as usize], offset)?;
        offset += piece;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn only_whole_pages_are_given_back() {
        let (page, size) = (*PAGE, 5 * *PAGE);
        for (zeroed, given_back) in [
            (page + 512..4 * page + 512, 2),
            (page..3 * page, 2),
            (page + 1..2 * page, 0),
            (page + 512..2 * page + 512, 0),
            (0..size, 5),
        ] {
            let path = std::env::temp_dir().join(format!("zeroed-{}", uuid::Uuid::new_v4()));
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path);
            let file = file.expect("a file");
            std::fs::remove_file(&path).expect("it is removed");
            let mut content = vec![7; size as usize];
            file.write_all_at(&content, 0).expect("written");
            file.sync_all().expect("synced");
            let held = file.metadata().expect("known").blocks();
            zero(&file, zeroed.start, zeroed.end - zeroed.start).expect("zeroed");
            file.sync_all().expect("synced");
            let left = file.metadata().expect("known").blocks();
            assert_eq!(held - left, given_back * page / 512, "{zeroed:?}");
            content[zeroed.start as usize..zeroed.end as usize].fill(0);
            let mut found = vec![1; size as usize];
            file.read_exact_at(&mut found, 0).expect("read");
            assert!(found == content, "{zeroed:?}");
        }
    }
}
