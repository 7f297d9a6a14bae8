//! An open image.

use std::ffi::c_char;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::cluster::{ClusterHandle, SendPointer};
use super::error::{c_name, check};
use super::features::Features;
use super::pool::PoolHandle;
use super::sys::{self, RbdImage, RbdImageInfo, RbdMirrorImageInfo};
use super::{Error, ErrorKind, Result, task};

/// How long [`Image::close`] waits.
const CLOSE_PATIENCE: Duration = Duration::from_secs(30);

/// For what an image is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// An open image, at a snapshot or as it is now; clones share the handle.
///
/// The image closes in the background when the last clone and the last operation are gone;
/// [`Image::close`] waits for that.
#[derive(Clone)]
pub struct Image {
    handle: Arc<ImageHandle>,
}

/// The owned `rbd_image_t`, the pool that it belongs to, and what was learnt when it was opened.
pub(super) struct ImageHandle {
    raw: RbdImage,
    name: String,
    pool: Arc<PoolHandle>,
    image: String,
    access: Access,
    facts: Facts,
    size: AtomicU64,
    /// Cancelled when the cluster has fenced this client off.
    fence: CancellationToken,
    /// Who wants to know when the image is closed.
    closing: Mutex<Vec<oneshot::Sender<()>>>,
}

/// What does not change while an image is open.
#[derive(Debug, Clone, Default)]
struct Facts {
    object_size: u64,
    /// How the names of its objects begin.
    prefix: String,
    stripe_unit: u64,
    stripe_count: u64,
    features: Features,
    flags: u64,
}

// SAFETY: librbd allows an open image to be used from any thread and from several at once; closing
// happens once, when the last owner is gone.
unsafe impl Send for ImageHandle {}
// SAFETY: as above.
unsafe impl Sync for ImageHandle {}

impl Drop for ImageHandle {
    fn drop(&mut self) {
        let raw = SendPointer(self.raw);
        let pool = Arc::clone(&self.pool);
        let name = std::mem::take(&mut self.name);
        let waiting = std::mem::take(
            self.closing
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner),
        );
        task::release("an image", move || {
            let SendPointer(raw) = { raw };
            // SAFETY: `raw` came from `rbd_open*`, nobody else has it any more, this thread is not
            // one of librbd's, and the pool is still open.
            let code = unsafe { sys::rbd_close(raw) };
            drop(pool);
            if let Err(error) = check("close", &name, code) {
                // Nothing can be lost: without a cache every write has its own result.
                tracing::warn!(%error, "image closed with an error");
            }
            for waiter in waiting {
                let _ = waiter.send(());
            }
        });
    }
}

impl ImageHandle {
    pub(super) fn raw(&self) -> RbdImage {
        self.raw
    }

    pub(super) fn fence(&self) -> &CancellationToken {
        &self.fence
    }

    pub(super) fn cluster(&self) -> &ClusterHandle {
        self.pool.cluster()
    }

    /// `pool/image` or `pool/image@snapshot`
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Image {
    pub(super) async fn open(
        pool: &Arc<PoolHandle>,
        image: &str,
        snapshot: Option<&str>,
        access: Access,
    ) -> Result<Self> {
        const OPEN: &str = "open";
        let c_image = c_name(OPEN, image)?;
        let c_snapshot = snapshot.map(|name| c_name(OPEN, name)).transpose()?;
        let name = match snapshot {
            Some(snapshot) => format!("{}@{}", pool.describe(image), snapshot.escape_debug()),
            None => pool.describe(image),
        };
        let image = image.to_owned();
        let pool = Arc::clone(pool);
        let cluster = Arc::clone(&pool);
        let named = name.clone();
        let opened = task::blocking(OPEN, &named, move || {
            let at = c_snapshot
                .as_ref()
                .map_or(std::ptr::null(), |name| name.as_ptr());
            let open = match access {
                Access::Read => sys::rbd_open_read_only,
                Access::Write => sys::rbd_open,
            };
            let mut raw: RbdImage = std::ptr::null_mut();
            // SAFETY: the pool is live, the names are NUL-terminated (no snapshot: null), `raw`
            // receives the handle.
            let code = unsafe { open(pool.raw(), c_image.as_ptr(), &raw mut raw, at) };
            check(OPEN, &name, code)?;
            // What has opened the image at a snapshot looks at it once more after it has said so: librbd
            // 16.2 ends the process if it is closed before that.
            pool.settle();
            let mut handle = ImageHandle {
                raw,
                name,
                pool,
                image,
                access,
                facts: Facts::default(),
                size: AtomicU64::new(0),
                fence: CancellationToken::new(),
                closing: Mutex::new(Vec::new()),
            };
            // From here on an error closes the image again: the handle owns it.
            handle.facts = read_facts(&handle)?;
            handle.size = AtomicU64::new(read_number(&handle, sys::rbd_get_size)?);
            Ok(Self {
                handle: Arc::new(handle),
            })
        });
        opened.await.map_err(|error| cluster.cluster().note(error))
    }

    pub(super) fn handle(&self) -> &Arc<ImageHandle> {
        &self.handle
    }

    /// `pool/image` or `pool/image@snapshot`, as errors name it.
    pub fn name(&self) -> &str {
        self.handle.name()
    }

    /// Opens the same image for reading at one of its snapshots, as another handle.
    pub async fn open_at(&self, snapshot: &str) -> Result<Self> {
        let handle = &self.handle;
        Self::open(&handle.pool, &handle.image, Some(snapshot), Access::Read).await
    }

    /// Size in bytes: of the snapshot, or of the image now. An image that was opened for reading
    /// keeps the size that it had then.
    pub async fn size(&self) -> Result<u64> {
        const STAT: &str = "stat";
        let handle = Arc::clone(&self.handle);
        let size = task::blocking(STAT, self.name(), move || {
            let size = read_number(&handle, sys::rbd_get_size)?;
            handle.size.store(size, Ordering::Relaxed);
            Ok(size)
        });
        self.unless_fenced(STAT, size).await
    }

    /// The size when it was last asked for, which is at the latest when the image was opened.
    pub fn known_size(&self) -> u64 {
        self.handle.size.load(Ordering::Relaxed)
    }

    /// Bytes after which the layout repeats: the object size, times the stripe count if striped.
    ///
    /// Any range that starts and ends at multiples of it touches a set of objects that no other
    /// such range touches.
    pub fn stripe_period(&self) -> u64 {
        self.handle.facts.object_size * self.handle.facts.stripe_count
    }

    /// The name of the object that holds the byte at an offset.
    pub fn object_at(&self, offset: u64) -> String {
        let facts = &self.handle.facts;
        let unit = offset / facts.stripe_unit.max(1);
        let (stripe, place) = (unit / facts.stripe_count, unit % facts.stripe_count);
        let stripes = (facts.object_size / facts.stripe_unit.max(1)).max(1);
        let object = stripe / stripes * facts.stripe_count + place;
        format!("{}.{object:016x}", facts.prefix)
    }

    /// How many bytes from an offset on lie in that object without a break.
    pub fn room_in_object(&self, offset: u64) -> u64 {
        let unit = self.handle.facts.stripe_unit.max(1);
        unit - offset % unit
    }

    /// The pool that holds its data, which need not be the one that holds its name.
    pub async fn data_pool(&self) -> Result<String> {
        const NAME: &str = "name the data pool of";
        let handle = Arc::clone(&self.handle);
        let named = task::blocking(NAME, self.name(), move || {
            // SAFETY: the image is open.
            let id = unsafe { sys::rbd_get_data_pool_id(handle.raw) };
            handle.pool.cluster().name_of_pool(id)
        });
        self.unless_fenced(NAME, named).await
    }

    /// Its features.
    pub fn features(&self) -> Features {
        self.handle.facts.features
    }

    /// Whether the object map can tell which objects changed: the feature is there and neither map
    /// is marked invalid, as of opening, at the snapshot that was opened.
    pub fn has_valid_fast_diff(&self) -> bool {
        let facts = &self.handle.facts;
        facts.features.contains(Features::FAST_DIFF) && facts.flags & sys::FLAGS_MAP_INVALID == 0
    }

    /// Changes the size. What lies behind a smaller one is gone, and reads as zeros should the image
    /// grow again.
    pub async fn resize(&self, size: u64) -> Result<()> {
        const RESIZE: &str = "resize";
        self.check_writable(RESIZE)?;
        let handle = Arc::clone(&self.handle);
        let resized = task::blocking(RESIZE, self.name(), move || {
            // Not `rbd_resize2`: it calls its progress function even when that is null.
            // SAFETY: the image is open.
            let code = unsafe { sys::rbd_resize(handle.raw, size) };
            check(RESIZE, &handle.name, code).map(drop)
        });
        self.unless_fenced(RESIZE, resized).await?;
        self.size().await.map(drop)
    }

    /// Makes this handle the only one that may write, until it is closed: the exclusive lock is taken
    /// now and, unlike the one that comes with the first write, not handed to whoever asks for it.
    /// Others can still take and remove snapshots; that is done through this handle. What they write
    /// is refused. A handle of this process needs [`Image::own`] to learn that: with zero-copy writes
    /// librbd (16.2) never ends what it refuses so.
    ///
    /// An owner that died is fenced off as soon as the cluster has forgotten it, after half a minute.
    /// An image without the feature cannot be owned, and stays as it is.
    ///
    /// # Errors
    /// `Busy` when another one owns the image; `ReadOnly` when it was opened for reading, or when it is
    /// mirrored from another cluster.
    pub async fn own(&self) -> Result<()> {
        const OWN: &str = "own";
        self.check_writable(OWN)?;
        if !self.features().contains(Features::EXCLUSIVE_LOCK) {
            return Ok(());
        }
        let handle = Arc::clone(&self.handle);
        let owned = task::blocking(OWN, self.name(), move || {
            // SAFETY: the image is open.
            let code = unsafe { sys::rbd_lock_acquire(handle.raw, sys::LOCK_EXCLUSIVE) };
            if code < 0 && is_mirrored_from_elsewhere(&handle) {
                let reason = "it is mirrored from another cluster, and not the primary one";
                let kind = ErrorKind::ReadOnly;
                return Err(Error::new(kind, OWN, &handle.name, reason));
            }
            // What an owner answers to whoever asks for its lock.
            let code = match code {
                code if code == -libc::EROFS => -libc::EBUSY,
                code => code,
            };
            check(OWN, &handle.name, code).map(drop)
        });
        self.unless_fenced(OWN, owned).await
    }

    /// Closes the image and returns when that is done: the watch of an image that was opened for
    /// writing is then gone.
    ///
    /// Waits for every clone of this handle and every operation that is still under way, but not
    /// forever: after half a minute, or at once if this client was fenced off, closing goes on in the
    /// background.
    pub async fn close(self) {
        let (sender, closed) = oneshot::channel();
        let fence = self.handle.fence.clone();
        let name = self.name().to_owned();
        self.handle
            .closing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sender);
        drop(self);
        tokio::select! {
            // An error only means that no thread could be had, which is logged there.
            _ = closed => {}
            () = fence.cancelled() => {}
            () = tokio::time::sleep(CLOSE_PATIENCE) => {
                tracing::warn!(image = name, "closing takes long and goes on in the background");
            }
        }
    }

    /// librbd (16.2) never ends a write to an image that was opened for reading and has the exclusive
    /// lock feature.
    pub(super) fn check_writable(&self, operation: &'static str) -> Result<()> {
        match self.handle.access {
            Access::Write => Ok(()),
            Access::Read => Err(Error::from_code(
                operation,
                self.name(),
                -i64::from(libc::EROFS),
            )),
        }
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("name", &self.handle.name)
            .field("size", &self.known_size())
            .field("facts", &self.handle.facts)
            .finish_non_exhaustive()
    }
}

fn read_facts(handle: &ImageHandle) -> Result<Facts> {
    let mut info = std::mem::MaybeUninit::<RbdImageInfo>::zeroed();
    // SAFETY: the image is open; librbd fills at most the given size. All-zero is a valid value.
    let info = unsafe {
        let code = sys::rbd_stat(handle.raw, info.as_mut_ptr(), size_of::<RbdImageInfo>());
        check("stat", &handle.name, code)?;
        info.assume_init()
    };
    Ok(Facts {
        object_size: info.object_size,
        prefix: read_prefix(handle)?,
        stripe_unit: read_number(handle, sys::rbd_get_stripe_unit)?,
        stripe_count: read_number(handle, sys::rbd_get_stripe_count)?.max(1),
        features: Features::from_bits(read_number(handle, sys::rbd_get_features)?),
        flags: read_number(handle, sys::rbd_get_flags)?,
    })
}

/// How the names of an image's objects begin. What `rbd_stat` tells of it is cut off.
fn read_prefix(handle: &ImageHandle) -> Result<String> {
    let mut prefix = [0u8; 128];
    // SAFETY: the image is open, `prefix` is writable for its length.
    let code = unsafe {
        let buffer = prefix.as_mut_ptr().cast::<c_char>();
        sys::rbd_get_block_name_prefix(handle.raw, buffer, prefix.len())
    };
    check("stat", &handle.name, code)?;
    let end = prefix.iter().position(|byte| *byte == 0);
    let prefix = &prefix[..end.unwrap_or(prefix.len())];
    Ok(String::from_utf8_lossy(prefix).into_owned())
}

/// Whether the image is a copy that mirroring keeps, which nobody else can write. The refusal does not
/// say so: it is EINVAL or EPERM (16.2), depending on the mode.
fn is_mirrored_from_elsewhere(handle: &ImageHandle) -> bool {
    let mut info = RbdMirrorImageInfo {
        global_id: std::ptr::null_mut(),
        state: 0,
        primary: false,
    };
    // SAFETY: the image is open; `info` is writable and as large as it says.
    let code = unsafe {
        let size = size_of::<RbdMirrorImageInfo>();
        sys::rbd_mirror_image_get_info(handle.raw, &raw mut info, size)
    };
    if code < 0 {
        return false;
    }
    let copy = info.state == sys::MIRROR_ENABLED && !info.primary;
    // SAFETY: frees the text that librbd put in, once.
    unsafe { sys::rbd_mirror_image_get_info_cleanup(&raw mut info) };
    copy
}

/// Calls one of librbd's functions that write one number about an image.
fn read_number(
    handle: &ImageHandle,
    function: unsafe extern "C" fn(RbdImage, *mut u64) -> libc::c_int,
) -> Result<u64> {
    let mut value = 0;
    // SAFETY: the image is open, `value` receives the number.
    let code = unsafe { function(handle.raw, &raw mut value) };
    check("stat", &handle.name, code)?;
    Ok(value)
}
