//! Small RADOS objects, read and written as a whole.

use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::Arc;

use ceph::rados::{
    rados_create_write_op, rados_getxattr, rados_read, rados_release_write_op, rados_remove,
    rados_stat, rados_write_full, rados_write_op_assert_exists, rados_write_op_create,
    rados_write_op_operate, rados_write_op_setxattr, rados_write_op_t, rados_write_op_write_full,
};

use super::error::{c_name, check};
use super::pool::PoolHandle;
use super::sys;
use super::{Error, ErrorKind, Pool, Result};

/// How much of an object one request reads.
const READ_STEP: usize = 512 << 10;

/// An object that nobody writes.
const PROBE: &str = "cinderblock.probe";

impl Pool {
    /// Finds out whether the cluster serves this client in this pool. Opening a pool asks nobody.
    pub async fn probe(&self) -> Result<()> {
        self.object_size(PROBE).await.map(drop)
    }

    /// Reads an object whole; `None` when it does not exist.
    ///
    /// # Errors
    /// `TooLarge` when it is longer than `limit` bytes.
    pub async fn read_object(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        const READ: &str = "read object";
        self.with_object(READ, name, move |pool, name, object| {
            exists(read_all(pool, name, object, limit))
        })
        .await
    }

    /// Writes an object whole: what it held before is gone, atomically.
    pub async fn write_object(&self, name: &str, content: &[u8]) -> Result<()> {
        const WRITE: &str = "write object";
        let content = content.to_owned();
        self.with_object(WRITE, name, move |pool, name, object| {
            // SAFETY: the pool is live, the name NUL-terminated, the content readable.
            let code = unsafe {
                rados_write_full(
                    pool.raw(),
                    name.as_ptr(),
                    content.as_ptr().cast::<c_char>(),
                    content.len(),
                )
            };
            check(WRITE, object, code).map(drop)
        })
        .await
    }

    /// Writes an object whole in place of what it held, unless that is something else by now, or gone;
    /// whether it was written. For texts: what ends with zeros is as good as what does not.
    pub async fn replace_object(&self, name: &str, held: &[u8], content: &[u8]) -> Result<bool> {
        const REPLACE: &str = "replace object";
        // What is behind an object's end compares as zeros: so a longer one is something else.
        let held = [held, &[0]].concat();
        let content = content.to_owned();
        self.with_object(REPLACE, name, move |pool, name, object| {
            // SAFETY: the operation lives while it is filled; what it refers to outlives the call.
            let code = change(pool, name, |operation| unsafe {
                let (from, outcome) = (0, std::ptr::null_mut());
                sys::rados_write_op_cmpext(
                    operation,
                    held.as_ptr().cast::<c_char>(),
                    held.len(),
                    from,
                    outcome,
                );
                rados_write_op_write_full(
                    operation,
                    content.as_ptr().cast::<c_char>(),
                    content.len(),
                );
            });
            // It tells where the first byte is that differs.
            if code <= -sys::MAX_ERRNO {
                return Ok(false);
            }
            Ok(exists(check(REPLACE, object, code))?.is_some())
        })
        .await
    }

    /// The length of an object in bytes; `None` when it does not exist.
    pub async fn object_size(&self, name: &str) -> Result<Option<u64>> {
        const STAT: &str = "stat object";
        self.with_object(STAT, name, move |pool, name, object| {
            let mut size = 0;
            // SAFETY: the pool is live, the name NUL-terminated, `size` receives the length; the
            // time is not asked for.
            let code = unsafe {
                rados_stat(
                    pool.raw(),
                    name.as_ptr(),
                    &raw mut size,
                    std::ptr::null_mut(),
                )
            };
            Ok(exists(check(STAT, object, code))?.map(|_| size))
        })
        .await
    }

    /// Removes an object; false when there was none.
    pub async fn remove_object(&self, name: &str) -> Result<bool> {
        const REMOVE: &str = "remove object";
        self.with_object(REMOVE, name, move |pool, name, object| {
            // SAFETY: the pool is live, the name NUL-terminated.
            let code = unsafe { rados_remove(pool.raw(), name.as_ptr()) };
            Ok(exists(check(REMOVE, object, code))?.is_some())
        })
        .await
    }

    /// Sets an attribute of an object; false when there is no such object, which is not made then.
    pub async fn set_attribute(&self, name: &str, attribute: &str, value: &[u8]) -> Result<bool> {
        const SET: &str = "set an attribute of object";
        let (attribute, value) = (c_name(SET, attribute)?, value.to_owned());
        self.with_object(SET, name, move |pool, name, object| {
            // SAFETY: the operation lives while it is filled; what it refers to outlives the call; the
            // attribute's name is NUL-terminated.
            let code = change(pool, name, |operation| unsafe {
                rados_write_op_setxattr(
                    operation,
                    attribute.as_ptr(),
                    value.as_ptr().cast::<c_char>(),
                    value.len(),
                );
            });
            Ok(exists(check(SET, object, code))?.is_some())
        })
        .await
    }

    /// An attribute of an object; `None` when there is no such attribute, or no such object.
    ///
    /// # Errors
    /// When it is longer than `limit` bytes.
    pub async fn attribute(
        &self,
        name: &str,
        attribute: &str,
        limit: usize,
    ) -> Result<Option<Vec<u8>>> {
        const GET: &str = "read an attribute of object";
        let attribute = c_name(GET, attribute)?;
        self.with_object(GET, name, move |pool, name, object| {
            let mut value = vec![0; limit];
            // SAFETY: the pool is live, the names are NUL-terminated, `value` is writable for its length.
            let code = unsafe {
                rados_getxattr(
                    pool.raw(),
                    name.as_ptr(),
                    attribute.as_ptr(),
                    value.as_mut_ptr().cast::<c_char>(),
                    value.len(),
                )
            };
            if code == -libc::ENODATA {
                return Ok(None);
            }
            let length = exists(check(GET, object, code))?;
            Ok(length.map(|length| {
                value.truncate(usize::try_from(length).unwrap_or_default());
                value
            }))
        })
        .await
    }

    /// Runs a blocking call on one object, which is given as C wants it and as errors name it.
    pub(super) async fn with_object<T, F>(
        &self,
        operation: &'static str,
        name: &str,
        call: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&PoolHandle, &CStr, &str) -> Result<T> + Send + 'static,
    {
        let c_object: CString = c_name(operation, name)?;
        let pool = Arc::clone(self.handle());
        let object = pool.describe(name);
        self.blocking(operation, &object.clone(), move || {
            call(&pool, &c_object, &object)
        })
        .await
    }
}

/// Changes an object that exists by an operation of several parts, all or none of which are carried out.
fn change(pool: &PoolHandle, name: &CStr, fill: impl FnOnce(rados_write_op_t)) -> c_int {
    operate(pool, name, |operation| {
        // SAFETY: the operation lives while it is filled.
        unsafe { rados_write_op_assert_exists(operation) };
        fill(operation);
    })
}

/// Makes an object unless it is there.
pub(super) fn make(pool: &PoolHandle, name: &CStr) -> c_int {
    // SAFETY: the operation lives while it is filled; no category is given.
    operate(pool, name, |operation| unsafe {
        rados_write_op_create(operation, sys::CREATE_IDEMPOTENT, std::ptr::null());
    })
}

fn operate(pool: &PoolHandle, name: &CStr, fill: impl FnOnce(rados_write_op_t)) -> c_int {
    let (mtime, flags) = (std::ptr::null_mut(), 0);
    // SAFETY: the operation is released once, after its last use; the pool is live and the name is
    // NUL-terminated.
    unsafe {
        let operation = rados_create_write_op();
        fill(operation);
        let code = rados_write_op_operate(operation, pool.raw(), name.as_ptr(), mtime, flags);
        rados_release_write_op(operation);
        code
    }
}

/// Turns "there is none" into a result.
fn exists<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn read_all(pool: &PoolHandle, name: &CStr, object: &str, limit: usize) -> Result<Vec<u8>> {
    const READ: &str = "read object";
    let mut content = Vec::new();
    loop {
        let start = content.len();
        content.resize(start + READ_STEP, 0);
        let rest = &mut content[start..];
        // SAFETY: the pool is live, the name NUL-terminated, `rest` writable for its length.
        let code = unsafe {
            rados_read(
                pool.raw(),
                name.as_ptr(),
                rest.as_mut_ptr().cast::<c_char>(),
                rest.len(),
                start as u64,
            )
        };
        let read = check(READ, object, code)?;
        let read = usize::try_from(read).unwrap_or_default().min(READ_STEP);
        content.truncate(start + read);
        if content.len() > limit {
            let reason = format!("it is longer than {limit} bytes");
            return Err(Error::new(ErrorKind::TooLarge, READ, object, reason));
        }
        if read < READ_STEP {
            return Ok(content);
        }
    }
}
