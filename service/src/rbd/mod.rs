//! Safe, asynchronous librbd and RADOS: clusters, pools, images, snapshots, changed extents.
//!
//! This room knows Ceph and nothing else. It holds the only `unsafe` code of the workspace: the
//! declarations of librbd's C functions (`sys`), and the few files that call them or the raw RADOS
//! functions that the `ceph` crate declares.
//!
//! What holds for everything here:
//!
//! - A call that may block runs on tokio's blocking threads; reads and writes are librbd's own
//!   asynchronous operations.
//! - Every future may be dropped at any time. What was submitted goes on in the background, and
//!   librbd keeps the buffer and the image alive until it is done with them.
//! - Handles close in the right order by themselves: an image keeps its pool, a pool its cluster.
//! - Ceph waits until a cluster that does not answer is back, unless the caller sets the time limits
//!   that [`ClusterOptions`] describes. Whoever cannot wait drops the future.

#[allow(unsafe_code)]
mod cluster;
#[allow(unsafe_code)]
mod completion;
#[allow(unsafe_code)]
mod data;
#[allow(unsafe_code)]
mod diff;
mod error;
mod features;
mod fence;
#[allow(unsafe_code)]
mod image;
#[allow(unsafe_code)]
mod lease;
mod link;
#[allow(unsafe_code)]
mod object;
#[allow(unsafe_code)]
mod pool;
mod probes;
#[allow(unsafe_code)]
mod snapshot;
#[allow(unsafe_code)]
mod sys;
#[allow(unsafe_code)]
mod task;

pub use cluster::{CONNECT, Cluster, ClusterOptions, READ_CONF};
pub use diff::{Change, DiffQuery};
pub use error::{Error, ErrorKind};
pub use features::Features;
pub use image::Image;
pub use link::Link;
pub use pool::{ImageOptions, OPEN_POOL, Pool};
pub use snapshot::Snapshot;

/// The result of everything in this room.
pub type Result<T> = std::result::Result<T, Error>;
