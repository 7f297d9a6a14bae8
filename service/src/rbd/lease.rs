//! Timed locks on an object: leases, which are shared and by which clients show each other that they live,
//! and turns, of which there is one at a time.

use std::ffi::{CStr, c_char, c_int};
use std::time::Duration;

use ceph::rados::{rados_list_lockers, rados_lock_exclusive, rados_lock_shared, rados_unlock};
use libc::timeval;

use super::error::{c_name, check};
use super::{Error, ErrorKind, Pool, Result};

/// The lock's name on every object, and the tag that all its holders give.
const LEASE: &CStr = c"lease";

/// The name of the lock whose holder has its turn.
const TURN: &CStr = c"turn";

/// `LIBRADOS_LOCK_FLAG_MAY_RENEW`
const MAY_RENEW: u8 = 1;

/// Bytes of the list of holders: a thousand of them.
const LIST: usize = 64 << 10;

impl Pool {
    /// Holds a lease on an object for some time from now, as one of any number of holders; renews
    /// the one that is held already. The object is made if there is none.
    pub async fn hold_lease(&self, object: &str, holder: &str, lasts: Duration) -> Result<()> {
        const HOLD: &str = "hold the lease on";
        let holder = c_name(HOLD, holder)?;
        self.with_object(HOLD, object, move |pool, name, object| {
            let mut lasts = span(lasts);
            // SAFETY: the pool is live, the names are NUL-terminated, the time is only read.
            let code = unsafe {
                rados_lock_shared(
                    pool.raw(),
                    name.as_ptr(),
                    LEASE.as_ptr(),
                    holder.as_ptr(),
                    LEASE.as_ptr(),
                    c"".as_ptr(),
                    &raw mut lasts,
                    MAY_RENEW,
                )
            };
            check(HOLD, object, code).map(drop)
        })
        .await
    }

    /// Gives a lease back; none is left that has not been held.
    pub async fn end_lease(&self, object: &str, holder: &str) -> Result<()> {
        self.unlock("end the lease on", object, LEASE, holder).await
    }

    /// Takes one's turn on an object, for so long at most, unless somebody has it; whether it was taken.
    /// The object is made if there is none.
    pub async fn take_turn(&self, object: &str, holder: &str, lasts: Duration) -> Result<bool> {
        const TAKE: &str = "take the turn on";
        let holder = c_name(TAKE, holder)?;
        self.with_object(TAKE, object, move |pool, name, object| {
            let mut lasts = span(lasts);
            // SAFETY: the pool is live, the names are NUL-terminated, the time is only read.
            let code = unsafe {
                rados_lock_exclusive(
                    pool.raw(),
                    name.as_ptr(),
                    TURN.as_ptr(),
                    holder.as_ptr(),
                    c"".as_ptr(),
                    &raw mut lasts,
                    0,
                )
            };
            match check(TAKE, object, code) {
                // Of another client; of this one.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Busy | ErrorKind::AlreadyExists) =>
                {
                    Ok(false)
                }
                taken => taken.map(|_| true),
            }
        })
        .await
    }

    /// Ends one's turn; nothing happens if it was over.
    pub async fn end_turn(&self, object: &str, holder: &str) -> Result<()> {
        self.unlock("end the turn on", object, TURN, holder).await
    }

    async fn unlock(
        &self,
        action: &'static str,
        object: &str,
        lock: &'static CStr,
        holder: &str,
    ) -> Result<()> {
        let holder = c_name(action, holder)?;
        self.with_object(action, object, move |pool, name, object| {
            // SAFETY: the pool is live, the names are NUL-terminated.
            let code =
                unsafe { rados_unlock(pool.raw(), name.as_ptr(), lock.as_ptr(), holder.as_ptr()) };
            match check(action, object, code) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                ended => ended.map(drop),
            }
        })
        .await
    }

    /// Who holds a lease on an object now.
    pub async fn lease_holders(&self, object: &str) -> Result<Vec<String>> {
        const LOOK: &str = "list the leases on";
        self.with_object(LOOK, object, |pool, name, object| {
            let [mut tag, mut clients, mut cookies, mut addresses] = [(); 4].map(|()| List::new());
            let mut exclusive: c_int = 0;
            // SAFETY: the pool is live, the names are NUL-terminated, each list is writable for the
            // length that stands beside it.
            let count = unsafe {
                rados_list_lockers(
                    pool.raw(),
                    name.as_ptr(),
                    LEASE.as_ptr(),
                    &raw mut exclusive,
                    tag.bytes.as_mut_ptr().cast::<c_char>(),
                    &raw mut tag.length,
                    clients.bytes.as_mut_ptr().cast::<c_char>(),
                    &raw mut clients.length,
                    cookies.bytes.as_mut_ptr().cast::<c_char>(),
                    &raw mut cookies.length,
                    addresses.bytes.as_mut_ptr().cast::<c_char>(),
                    &raw mut addresses.length,
                )
            };
            if count < 0 {
                let error = Error::from_code(LOOK, object, count as i64);
                return match error.kind() {
                    ErrorKind::NotFound => Ok(Vec::new()),
                    _ => Err(error),
                };
            }
            let count = usize::try_from(count).unwrap_or_default();
            let holders = cookies.bytes.split(|byte| *byte == 0).take(count);
            Ok(holders
                .map(|holder| String::from_utf8_lossy(holder).into_owned())
                .collect())
        })
        .await
    }
}

fn span(lasts: Duration) -> timeval {
    timeval {
        tv_sec: i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX),
        tv_usec: i64::from(lasts.subsec_micros()),
    }
}

/// Room for texts that librados writes one after another, each with a NUL at its end.
struct List {
    bytes: Vec<u8>,
    length: usize,
}

impl List {
    fn new() -> Self {
        Self {
            bytes: vec![0; LIST],
            length: LIST,
        }
    }
}
