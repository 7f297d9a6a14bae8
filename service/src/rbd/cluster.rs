//! A connection to one Ceph cluster as one user.

use std::ffi::{CStr, CString, c_char};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ceph::rados::{
    rados_conf_get, rados_conf_read_file, rados_conf_set, rados_connect, rados_create2,
    rados_pool_reverse_lookup, rados_shutdown, rados_t,
};
use secrecy::{ExposeSecret, SecretString};

use super::error::{c_name, check};
use super::{Error, ErrorKind, Pool, Result, task};

/// Options that make bulk transfers cheaper, set before the caller's own.
///
/// The cache only costs copies here, and the buffers that are handed to librbd are not touched
/// until it is done with them, which is what zero-copy writes need (Ceph tracker 31794).
const BULK_DEFAULTS: [(&str, &str); 2] = [
    ("rbd_cache", "false"),
    ("rbd_disable_zero_copy_writes", "false"),
];

/// What errors call connecting ([`Error::operation`]).
pub const CONNECT: &str = "connect to";

/// What errors call reading a configuration file.
pub const READ_CONF: &str = "read configuration file";

/// How to reach a cluster.
///
/// Ceph itself waits for a cluster that does not answer. Three of its options put an end to that,
/// given in seconds through [`ClusterOptions::setting`] or the configuration file:
///
/// - `client_mount_timeout` bounds connecting (Ceph's default: 300); [`ClusterOptions::connect_timeout`] sets it;
/// - `rados_mon_op_timeout` bounds requests to the monitors (default 0: forever);
/// - `rados_osd_op_timeout` bounds requests to the OSDs, so every read, write and object operation
///   (default 0: forever). What runs into it fails with [`ErrorKind::Unreachable`].
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    cluster_name: String,
    user: String,
    conf_file: Option<PathBuf>,
    settings: Vec<(String, SecretString)>,
    connect_timeout: Option<Duration>,
}

impl ClusterOptions {
    /// The cluster `ceph` as this user, which is named without the leading `client.`.
    pub fn new(user: impl Into<String>) -> Self {
        Self {
            cluster_name: "ceph".to_owned(),
            user: user.into(),
            conf_file: None,
            settings: Vec::new(),
            connect_timeout: None,
        }
    }

    /// The cluster's name, which `$cluster` in the configuration stands for.
    pub fn cluster_name(mut self, name: impl Into<String>) -> Self {
        self.cluster_name = name.into();
        self
    }

    /// The configuration file. Without one no file is read, not even a default one.
    pub fn conf_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.conf_file = Some(path.into());
        self
    }

    /// Sets one of Ceph's options, over whatever the configuration file says.
    ///
    /// `mon_host` and `key` are enough to connect without any file.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// How long connecting may take; whole seconds, at least one.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = Some(limit);
        self
    }

    /// What error texts call the cluster before it is connected.
    fn describe(&self) -> String {
        format!("cluster {} as client.{}", self.cluster_name, self.user)
    }
}

/// A connected cluster; clones share the connection, which ends with the last of them and the last
/// pool and image that were opened through it.
#[derive(Clone)]
pub struct Cluster {
    handle: Arc<ClusterHandle>,
}

/// The owned `rados_t`.
pub(super) struct ClusterHandle {
    raw: rados_t,
    description: String,
    /// Without `client.`.
    user: String,
    /// Set for good once an operation was told that this client is fenced off.
    fenced: AtomicBool,
    /// The same for one that its user was not allowed.
    denied: AtomicBool,
}

// SAFETY: librados documents a `rados_t` as usable from any thread and from several at once; what
// it does not allow (use after `rados_shutdown`) cannot happen while the handle is owned here.
unsafe impl Send for ClusterHandle {}
// SAFETY: as above.
unsafe impl Sync for ClusterHandle {}

impl Drop for ClusterHandle {
    fn drop(&mut self) {
        let raw = SendPointer(self.raw);
        task::release("a cluster connection", move || {
            let SendPointer(raw) = { raw };
            // SAFETY: `raw` came from `rados_create2` and this is its only release; pools keep an
            // `Arc` of the handle, so none is left.
            unsafe { rados_shutdown(raw) }
        });
    }
}

/// A raw handle on its way to the thread that releases it.
pub(super) struct SendPointer(pub(super) *mut std::ffi::c_void);

// SAFETY: the handles that travel in it (`rados_t`, `rbd_image_t`) may be released from any thread.
unsafe impl Send for SendPointer {}

impl ClusterHandle {
    /// What a pool is called. Blocks.
    pub(super) fn name_of_pool(&self, id: i64) -> Result<String> {
        const NAME: &str = "name a pool of";
        let mut name = [0u8; 256];
        // SAFETY: the cluster is connected, `name` is writable for its length.
        let code = unsafe {
            let buffer = name.as_mut_ptr().cast::<c_char>();
            rados_pool_reverse_lookup(self.raw, id, buffer, name.len())
        };
        let length = check(NAME, &self.description, code)?;
        let length = usize::try_from(length).unwrap_or_default();
        Ok(String::from_utf8_lossy(&name[..length.min(name.len())]).into_owned())
    }

    pub(super) fn raw(&self) -> rados_t {
        self.raw
    }

    /// Looks whether an operation was refused because this client is fenced off, and names whose
    /// permission is missing.
    pub(super) fn note(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Shutdown => self.fenced.store(true, Ordering::Relaxed),
            ErrorKind::Permission => self.denied.store(true, Ordering::Relaxed),
            _ => {}
        }
        error.of_user(&self.user)
    }
}

impl Cluster {
    /// Connects.
    ///
    /// # Errors
    /// `Unconfigured` for a missing configuration file or key, `Permission` for a wrong key,
    /// `Unreachable` when no monitor answered in time, `InvalidArgument` for an unknown option.
    pub async fn connect(options: ClusterOptions) -> Result<Self> {
        let description = options.describe();
        task::blocking(CONNECT, &description, move || connect(&options))
            .await
            .map_err(Error::while_connecting)
    }

    /// Whether the cluster has fenced this client off, so that nothing will work through this
    /// connection any more. Known when the first operation has failed with [`ErrorKind::Shutdown`].
    pub fn is_fenced(&self) -> bool {
        self.handle.fenced.load(Ordering::Relaxed)
    }

    /// Whether an operation failed with [`ErrorKind::Permission`]: its user may have been granted more since,
    /// of which this connection does not hear for an hour.
    pub(super) fn was_denied(&self) -> bool {
        self.handle.denied.load(Ordering::Relaxed)
    }

    /// Opens a pool.
    ///
    /// # Errors
    /// `NotFound` when there is no such pool. A user without capabilities on the pool can open it;
    /// the first operation in it fails.
    pub async fn pool(&self, name: &str) -> Result<Pool> {
        Pool::in_cluster(Arc::clone(&self.handle), name).await
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cluster")
            .field(&self.handle.description)
            .finish()
    }
}

/// How many files a connection may open at once: its threads' queues, and the first monitors and OSDs.
const FILES: usize = 32;

/// librados (16.2) ends the whole process where it cannot open a file that it needs to connect.
fn expect_room_for_files(description: &str) -> Result<()> {
    let opened: io::Result<Vec<File>> = (0..FILES).map(|_| File::open("/dev/null")).collect();
    opened.map(drop).map_err(|error| {
        let code = error.raw_os_error().unwrap_or(libc::EIO);
        Error::from_code(CONNECT, description, -i64::from(code))
    })
}

fn connect(options: &ClusterOptions) -> Result<Cluster> {
    let description = options.describe();
    expect_room_for_files(&description)?;
    let cluster_name = c_name(CONNECT, &options.cluster_name)?;
    let user = c_name(CONNECT, &format!("client.{}", options.user))?;

    let mut raw: rados_t = std::ptr::null_mut();
    // SAFETY: both names are NUL-terminated, `raw` receives the new handle.
    let code = unsafe { rados_create2(&raw mut raw, cluster_name.as_ptr(), user.as_ptr(), 0) };
    check(CONNECT, &description, code)?;
    let handle = ClusterHandle {
        raw,
        description,
        user: options.user.clone(),
        fenced: AtomicBool::new(false),
        denied: AtomicBool::new(false),
    };

    if let Some(path) = &options.conf_file {
        let text = path.to_string_lossy();
        let path = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| invalid(&text, "the path contains a NUL byte"))?;
        // SAFETY: the handle is live and the path NUL-terminated.
        let code = unsafe { rados_conf_read_file(raw, path.as_ptr()) };
        check(READ_CONF, &text, code)?;
    }
    for (name, value) in BULK_DEFAULTS {
        // Not every release knows every one of them, and none is needed for a right result.
        if let Err(error) = set(&handle, name, value) {
            tracing::debug!(%error, "option left as it is");
        }
    }
    if let Some(limit) = options.connect_timeout {
        let seconds = limit.as_secs().max(1).to_string();
        set(&handle, "client_mount_timeout", &seconds)?;
    }
    for (name, value) in &options.settings {
        set(&handle, name, value.expose_secret())?;
    }

    // SAFETY: the handle is live and not yet connected.
    let code = unsafe { rados_connect(raw) };
    if let Err(error) = check(CONNECT, &handle.description, code) {
        let about_key = error.kind() != ErrorKind::Unreachable;
        return Err(error.hinting(about_key.then(|| keyrings(&handle)).flatten()));
    }
    Ok(Cluster {
        handle: Arc::new(handle),
    })
}

/// Where the user's key was looked for; none when it is given without a file. Ceph tells neither this
/// nor whether a wrong key or an unreadable file was the trouble.
fn keyrings(handle: &ClusterHandle) -> Option<String> {
    if get(handle, c"key").is_some() || get(handle, c"keyfile").is_some() {
        return None;
    }
    let names = get(handle, c"keyring")?;
    let separates = |c: char| matches!(c, ',' | ';' | ' ' | '\t' | '=');
    let tried: Vec<String> = names
        .split(separates)
        .filter(|name| !name.is_empty())
        .map(|name| match std::fs::File::open(name) {
            Ok(_) => format!("{name} (readable)"),
            Err(error) => format!("{name} ({error})"),
        })
        .collect();
    Some(format!("the key was looked for in {}", tried.join(", ")))
}

/// An option's value; none when it is empty.
fn get(handle: &ClusterHandle, option: &CStr) -> Option<String> {
    const LENGTH: usize = 4096;
    let mut buffer = [0u8; LENGTH];
    // SAFETY: the handle is live, the name NUL-terminated, the buffer writable for its length; what
    // does not fit is refused.
    let code = unsafe {
        let buffer = buffer.as_mut_ptr().cast::<c_char>();
        rados_conf_get(handle.raw, option.as_ptr(), buffer, LENGTH)
    };
    let value = CStr::from_bytes_until_nul(&buffer).ok()?.to_string_lossy();
    (code == 0 && !value.is_empty()).then(|| value.into_owned())
}

/// Sets an option before connecting; the error names the option and never its value.
fn set(handle: &ClusterHandle, name: &str, value: &str) -> Result<()> {
    const SET: &str = "set option";
    let value = CString::new(value).map_err(|_| invalid(name, "the value contains a NUL byte"))?;
    let option = c_name(SET, name)?;
    // SAFETY: the handle is live, name and value are NUL-terminated.
    let code = unsafe { rados_conf_set(handle.raw, option.as_ptr(), value.as_ptr()) };
    if code == -libc::ENOENT {
        return Err(invalid(name, "Ceph knows no such option"));
    }
    check(SET, name, code).map(drop)
}

fn invalid(object: &str, reason: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, "set option", object, reason)
}
