//! How far a backup is that is being made.

use serde::{Deserialize, Serialize};

use super::list::ChunkList;

/// Where the data of a backup comes from and goes to. An attempt that was broken off is only taken up where
/// both are the same as then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The id of the snapshot that is read.
    pub snapshot: u64,
    /// The name of the first object of the image that is written: one that is made anew has another.
    pub image: String,
}

/// What of a backup that is being made is safe: grains that have a digest in one of these chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Where it is safe, and what it is a part of.
    pub way: Way,
    /// The chunks that are there.
    pub chunks: ChunkList,
}
