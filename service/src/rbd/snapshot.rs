//! Snapshots of an image.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use super::error::{c_name, check};
use super::image::ImageHandle;
use super::sys::{self, RbdSnapInfo};
use super::{Image, Result, task};

/// A snapshot of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id in the cluster: later snapshots have larger ones.
    pub id: u64,
    /// Its name, unique in the image.
    pub name: String,
    /// The image's size in bytes when it was taken.
    pub size: u64,
}

impl Image {
    /// The image's snapshots, oldest first.
    ///
    /// An image that was opened for reading shows those that existed then.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>> {
        const LIST: &str = "list snapshots of";
        let handle = Arc::clone(self.handle());
        let listed = task::blocking(LIST, self.name(), move || list(&handle, LIST));
        self.unless_fenced(LIST, listed).await
    }

    /// Takes a snapshot of the image as it is now.
    ///
    /// # Errors
    /// `AlreadyExists`; `ReadOnly` when the image was opened for reading.
    pub async fn create_snapshot(&self, snapshot: &str) -> Result<()> {
        self.with_snapshot("create snapshot", snapshot, sys::rbd_snap_create)
            .await
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// `NotFound`; `Busy` when it is protected.
    pub async fn remove_snapshot(&self, snapshot: &str) -> Result<()> {
        self.with_snapshot("remove snapshot", snapshot, sys::rbd_snap_remove)
            .await
    }

    async fn with_snapshot(
        &self,
        operation: &'static str,
        snapshot: &str,
        function: unsafe extern "C" fn(sys::RbdImage, *const libc::c_char) -> libc::c_int,
    ) -> Result<()> {
        self.check_writable(operation)?;
        let c_snapshot: CString = c_name(operation, snapshot)?;
        let object = format!("{}@{}", self.name(), snapshot.escape_debug());
        let handle = Arc::clone(self.handle());
        let named = object.clone();
        let done = task::blocking(operation, &named, move || {
            // SAFETY: `function` is one of librbd's that takes an open image and a snapshot's name;
            // the image is open while `handle` lives, the name is NUL-terminated.
            let code = unsafe { function(handle.raw(), c_snapshot.as_ptr()) };
            check(operation, &object, code).map(drop)
        });
        self.unless_fenced(operation, done).await
    }
}

fn list(handle: &ImageHandle, operation: &'static str) -> Result<Vec<Snapshot>> {
    let empty = RbdSnapInfo {
        id: 0,
        size: 0,
        name: std::ptr::null(),
    };
    let mut capacity: libc::c_int = 8;
    loop {
        let mut entries = vec![empty; usize::try_from(capacity).unwrap_or_default()];
        // SAFETY: the image is open, `entries` is writable for `capacity` entries; when there are
        // more, librbd writes their number to `capacity`, fills none, and returns -ERANGE.
        let code =
            unsafe { sys::rbd_snap_list(handle.raw(), entries.as_mut_ptr(), &raw mut capacity) };
        if code == -libc::ERANGE {
            continue;
        }
        let count = usize::try_from(check(operation, handle.name(), code)?).unwrap_or_default();
        let mut snapshots: Vec<Snapshot> = entries
            .iter()
            .take(count)
            .map(|entry| Snapshot {
                id: entry.id,
                // SAFETY: librbd filled the entry with a NUL-terminated name that lives until
                // `rbd_snap_list_end`.
                name: unsafe { CStr::from_ptr(entry.name) }
                    .to_string_lossy()
                    .into_owned(),
                size: entry.size,
            })
            .collect();
        if count > 0 {
            // SAFETY: frees the names of a filled array, once; it ends at the entry without a name,
            // which librbd wrote behind the last one.
            unsafe { sys::rbd_snap_list_end(entries.as_mut_ptr()) };
        }
        snapshots.sort_by_key(|snapshot| snapshot.id);
        return Ok(snapshots);
    }
}
