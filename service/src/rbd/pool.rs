//! A pool: where images and objects are named.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use ceph::rados::{
    rados_aio_create_completion, rados_aio_flush_async, rados_aio_release,
    rados_aio_wait_for_complete, rados_completion_t, rados_ioctx_create, rados_ioctx_destroy,
    rados_ioctx_t, rados_stat,
};

use super::cluster::ClusterHandle;
use super::error::{c_name, check};
use super::image::{Access, Image};
use super::{Error, ErrorKind, Features, Result, object, sys, task};

/// What errors call opening a pool ([`Error::operation`]).
pub const OPEN_POOL: &str = "open pool";

/// A pool of a connected cluster; clones share one I/O context.
#[derive(Clone)]
pub struct Pool {
    handle: Arc<PoolHandle>,
}

/// The owned `rados_ioctx_t`, and the cluster that it belongs to.
pub(super) struct PoolHandle {
    raw: rados_ioctx_t,
    name: String,
    cluster: Arc<ClusterHandle>,
}

// SAFETY: an I/O context may be used from any thread and from several at once as long as nobody
// changes its namespace, locator or snapshot, and nothing here does.
unsafe impl Send for PoolHandle {}
// SAFETY: as above.
unsafe impl Sync for PoolHandle {}

impl Drop for PoolHandle {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `rados_ioctx_create`, this is its only release, and the images
        // opened through it are closed: each keeps an `Arc` of this handle. It does not block.
        unsafe { rados_ioctx_destroy(self.raw) }
    }
}

impl PoolHandle {
    pub(super) fn raw(&self) -> rados_ioctx_t {
        self.raw
    }

    /// The cluster's connection.
    pub(super) fn cluster(&self) -> &ClusterHandle {
        &self.cluster
    }

    /// Waits until librados has come back from what it calls at the moment. Asks no server.
    ///
    /// It calls one after another, on a thread of its own, and says so as well when everything that was
    /// written before is done; nothing of librbd's is written through this context.
    pub(super) fn settle(&self) {
        let mut completion: rados_completion_t = std::ptr::null_mut();
        // SAFETY: `completion` receives the new completion, which calls nothing and is released once, when
        // nobody waits for it any more; the pool is live.
        unsafe {
            let made =
                rados_aio_create_completion(std::ptr::null_mut(), None, None, &raw mut completion);
            if made < 0 {
                return;
            }
            if rados_aio_flush_async(self.raw, completion) >= 0 {
                rados_aio_wait_for_complete(completion);
            }
            rados_aio_release(completion);
        }
    }

    /// Whether the object exists that leads from an image's name to its id. Blocks.
    fn knows_image(&self, image: &CStr) -> bool {
        let object = [b"rbd_id.", image.to_bytes()].concat();
        let Ok(object) = CString::new(object) else {
            return false;
        };
        let mut size = 0;
        // SAFETY: the pool is live, the name NUL-terminated, `size` receives the length; the time
        // is not asked for.
        let code = unsafe {
            rados_stat(
                self.raw,
                object.as_ptr(),
                &raw mut size,
                std::ptr::null_mut(),
            )
        };
        code >= 0
    }

    /// What error texts call something in this pool.
    pub(super) fn describe(&self, name: &str) -> String {
        format!("{}/{}", self.name, name.escape_debug())
    }
}

/// What a new image shall be like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// Its size in bytes.
    pub size: u64,
    /// Exactly these features, or the cluster's `rbd_default_features`. librbd itself adds and
    /// drops [`Features::STRIPING`] to suit the layout.
    pub features: Option<Features>,
    /// Stripe unit in bytes, 0 for the plain layout. It must divide the object size, and unit and
    /// count must both be given or both be 0, else creating fails with `InvalidArgument`.
    pub stripe_unit: u64,
    /// Stripe count, 0 for the plain layout.
    pub stripe_count: u64,
}

impl Pool {
    pub(super) async fn in_cluster(cluster: Arc<ClusterHandle>, name: &str) -> Result<Self> {
        let c_pool = c_name(OPEN_POOL, name)?;
        let owned = name.to_owned();
        task::blocking(OPEN_POOL, name, move || {
            let mut raw: rados_ioctx_t = std::ptr::null_mut();
            // SAFETY: the cluster is connected, the name NUL-terminated, `raw` receives the handle.
            let code = unsafe { rados_ioctx_create(cluster.raw(), c_pool.as_ptr(), &raw mut raw) };
            check(OPEN_POOL, &owned, code)?;
            // Else what does not fit into a full pool waits until somebody makes room.
            // SAFETY: the I/O context is new and nobody else uses it yet.
            unsafe { sys::rados_set_pool_full_try(raw) };
            Ok(Self {
                handle: Arc::new(PoolHandle {
                    raw,
                    name: owned,
                    cluster,
                }),
            })
        })
        .await
    }

    /// Runs a blocking call in this pool.
    pub(super) async fn blocking<T, F>(
        &self,
        operation: &'static str,
        object: &str,
        call: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let outcome = task::blocking(operation, object, call).await;
        outcome.map_err(|error| self.handle.cluster.note(error))
    }

    pub(super) fn handle(&self) -> &Arc<PoolHandle> {
        &self.handle
    }

    /// The pool's name.
    pub fn name(&self) -> &str {
        &self.handle.name
    }

    /// Opens an image for reading, at a snapshot or as it is now.
    ///
    /// Takes no lock and sets no watch: it works with read-only capabilities and never makes the
    /// image busy for others. Size and snapshots are those at the time of opening.
    pub async fn open(&self, image: &str, snapshot: Option<&str>) -> Result<Image> {
        Image::open(&self.handle, image, snapshot, Access::Read).await
    }

    /// Opens an image for reading and writing.
    ///
    /// A watch stands on the image until it is closed; others cannot remove it meanwhile. The
    /// exclusive lock, if the image has that feature, is taken with the first write.
    pub async fn open_rw(&self, image: &str) -> Result<Image> {
        Image::open(&self.handle, image, None, Access::Write).await
    }

    /// Creates an image.
    ///
    /// # Errors
    /// `AlreadyExists`; `InvalidArgument` for a layout that librbd refuses.
    pub async fn create_image(&self, image: &str, options: &ImageOptions) -> Result<()> {
        const CREATE: &str = "create image";
        let pool = Arc::clone(&self.handle);
        let c_image = c_name(CREATE, image)?;
        let object = self.handle.describe(image);
        let options = options.clone();
        self.blocking(CREATE, &object.clone(), move || {
            let list = OptionList::new(&options, &object)?;
            // librbd (16.2) removes by way of the trash, for which a full pool that never had one has no room.
            check(CREATE, &object, object::make(&pool, sys::TRASH))?;
            // SAFETY: pool and option list are live, the name is NUL-terminated.
            let code =
                unsafe { sys::rbd_create4(pool.raw(), c_image.as_ptr(), options.size, list.raw) };
            check(CREATE, &object, code).map(drop)
        })
        .await
    }

    /// Removes an image and its data.
    ///
    /// # Errors
    /// `NotFound`; `HasSnapshots`; `Busy` while anyone has it open for writing, and for about 30
    /// seconds after such a client died; `NoSpace` when the pool is full and neither had an image removed nor
    /// one made by [`Pool::create_image`] (giving back its space with [`Image::resize`] helps). An
    /// interrupted removal is carried on by the next.
    pub async fn remove_image(&self, image: &str) -> Result<()> {
        const REMOVE: &str = "remove image";
        let pool = Arc::clone(&self.handle);
        let c_image = c_name(REMOVE, image)?;
        let object = self.handle.describe(image);
        self.blocking(REMOVE, &object.clone(), move || {
            // SAFETY: the pool is live, the name NUL-terminated.
            let code = unsafe { sys::rbd_remove(pool.raw(), c_image.as_ptr()) };
            if code == -libc::ENOENT && pool.knows_image(&c_image) {
                // librbd (16.2) removes by way of the trash and says the same when it cannot make
                // that, in a full pool that never had one.
                let reason = "its pool has no room for the trash, and it is still there";
                return Err(Error::new(ErrorKind::NoSpace, REMOVE, &object, reason));
            }
            check(REMOVE, &object, code).map(drop)
        })
        .await
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pool").field(&self.handle.name).finish()
    }
}

/// The owned `rbd_image_options_t`.
struct OptionList {
    raw: sys::RbdImageOptions,
}

impl OptionList {
    fn new(options: &ImageOptions, object: &str) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` receives the new list.
        unsafe { sys::rbd_image_options_create(&raw mut raw) };
        let list = Self { raw };
        let values = [
            (sys::OPTION_FEATURES, options.features.map(Features::bits)),
            (sys::OPTION_STRIPE_UNIT, Some(options.stripe_unit)),
            (sys::OPTION_STRIPE_COUNT, Some(options.stripe_count)),
        ];
        for (key, value) in values {
            let Some(value) = value else { continue };
            // SAFETY: the list is live; unknown keys are refused with an error.
            let code = unsafe { sys::rbd_image_options_set_uint64(list.raw, key, value) };
            check("create image", object, code)?;
        }
        Ok(list)
    }
}

impl Drop for OptionList {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `rbd_image_options_create` and this is its only release.
        unsafe { sys::rbd_image_options_destroy(self.raw) }
    }
}
