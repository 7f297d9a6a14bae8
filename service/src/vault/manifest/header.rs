//! What a manifest says of itself: the JSON object `backup.<id>.manifest`.

use std::ops::Range;

use api_compat::excerpt::excerpt;
use api_compat::ids::BackupId;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::checkpoint::Checkpoint;
use super::chunk::BYTES;
use super::list::ChunkList;
use crate::rbd;
use crate::transfer::GRAIN;
use crate::vault::trust::Rollback;

/// A header longer than this is none: one that lists every second chunk of the largest image that RBD
/// can have would be shorter.
pub const LIMIT: usize = 64 << 20;

/// RBD's images end before that, in bytes.
const LARGEST: u64 = 1 << 54;

const VERSION: u32 = 1;
const DIGEST: &str = "xxh3-128";

/// What a manifest says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    version: u32,
    /// How digests are made.
    digest: String,
    /// Bytes of a grain.
    grain: u64,
    /// What digests are seeded with; hexadecimal, since JSON's numbers may be rounded.
    seed: String,
    /// The backup's snapshot in its base image: the content that is described.
    pub snapshot: String,
    /// How long that is, in bytes.
    pub size: u64,
    /// The manifest that tells of the grains of which this one has no digest.
    pub older: Option<Older>,
    /// How a rollback of the volume to a snapshot older than the backup would show.
    pub rollback: Option<Rollback>,
    /// Whether grains of which neither this nor an older manifest has a digest are zeros. Otherwise
    /// nothing is known of them.
    pub whole: bool,
    /// The chunks that there are. None in a draft, which is there while the manifest is being made, when any
    /// chunk may be there.
    chunks: Option<ChunkList>,
    /// The set to which they belong.
    pub set: Option<String>,
    /// Other sets, of which any chunk may be there: one that is being written to take its place, one whose
    /// place it took.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Option<String>>,
    /// In a draft, how far the backup is, if an attempt that is broken off can be taken up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// XXH3 (64 bits, hexadecimal) of the same text without a character here; only as it is stored.
    check: String,
}

/// Another backup's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Older {
    /// The backup.
    pub backup: BackupId,
    /// Its snapshot: what it described when this one was built on it.
    pub snapshot: String,
}

/// A header that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum NotAHeader {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] rbd::Error),
    /// It is not what was written.
    #[error("its checksum is wrong")]
    Check,
    /// It is no JSON, or misses something.
    #[error("it is not the header of a manifest: {}", excerpt(.0))]
    Json(#[from] serde_json::Error),
    /// A newer release may have written it.
    #[error(
        "it is of version {version} with digests {digest:?} of {grain} bytes, which this release does not know"
    )]
    Unknown {
        /// Its version.
        version: u32,
        /// How its digests are made.
        digest: String,
        /// Of how many bytes.
        grain: u64,
    },
    /// Its seed is no number.
    #[error("its seed {0:?} is not a number of 64 bits")]
    Seed(String),
    /// No image has its size.
    #[error("no image has {0} bytes")]
    Size(u64),
    /// Its chunks are out of order, or lie behind its end.
    #[error("its chunks are out of order, or lie behind its end")]
    Chunks,
}

impl Header {
    /// The header of a manifest that describes everything in a snapshot of `size` bytes.
    pub fn new(snapshot: &str, size: u64, seed: u64) -> Self {
        Self {
            version: VERSION,
            digest: DIGEST.to_owned(),
            grain: GRAIN,
            seed: format!("{seed:016x}"),
            snapshot: snapshot.to_owned(),
            size,
            older: None,
            rollback: None,
            whole: true,
            chunks: Some(ChunkList::default()),
            set: None,
            others: Vec::new(),
            checkpoint: None,
            check: String::new(),
        }
    }

    /// The same for as long as it is not known which chunks there will be; they are not to be read.
    pub fn draft(&self) -> Self {
        Self {
            chunks: None,
            set: None,
            ..self.clone()
        }
    }

    /// Whether it is one.
    pub fn is_draft(&self) -> bool {
        self.chunks.is_none()
    }

    /// Whether it tells of the same digests.
    pub fn tells_as(&self, other: &Self) -> bool {
        let alone = |header: &Self| Self {
            others: Vec::new(),
            ..header.clone()
        };
        alone(self) == alone(other)
    }

    /// What digests are seeded with.
    pub fn seed(&self) -> u64 {
        // Checked when it was read.
        u64::from_str_radix(&self.seed, 16).unwrap_or_default()
    }

    /// All chunks that there can be.
    pub fn possible_chunks(&self) -> Range<u32> {
        0..self.size.div_ceil(BYTES) as u32
    }

    /// The chunks that there are.
    pub fn chunks(&self) -> impl Iterator<Item = u32> + '_ {
        self.chunks.iter().flat_map(ChunkList::iter)
    }

    /// Whether there is this chunk.
    pub fn has(&self, chunk: u32) -> bool {
        self.chunks.as_ref().is_some_and(|list| list.has(chunk))
    }

    /// Sets the chunks that there are.
    pub fn list(&mut self, chunks: ChunkList) {
        self.chunks = Some(chunks);
    }

    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut stored = self.clone();
        stored.check = check(self);
        to_json(&stored)
    }

    /// Reads what [`Header::encode`] wrote.
    pub fn decode(stored: &[u8]) -> Result<Self, NotAHeader> {
        let mut header: Self = serde_json::from_slice(stored)?;
        let stored = std::mem::take(&mut header.check);
        if (header.version, header.digest.as_str(), header.grain) != (VERSION, DIGEST, GRAIN) {
            return Err(NotAHeader::Unknown {
                version: header.version,
                digest: beginning(&header.digest),
                grain: header.grain,
            });
        }
        if stored != check(&header) {
            return Err(NotAHeader::Check);
        }
        if u64::from_str_radix(&header.seed, 16).is_err() {
            return Err(NotAHeader::Seed(beginning(&header.seed)));
        }
        if header.size > LARGEST {
            return Err(NotAHeader::Size(header.size));
        }
        let end = u64::from(header.possible_chunks().end);
        let reached = header.checkpoint.as_ref().map(|it| &it.chunks);
        if !header
            .chunks
            .iter()
            .chain(reached)
            .all(|list| list.is_sound(end))
        {
            return Err(NotAHeader::Chunks);
        }
        Ok(header)
    }
}

/// Enough of a text to recognise it.
fn beginning(text: &str) -> String {
    text.chars().take(64).collect()
}

fn check(header: &Header) -> String {
    format!("{:016x}", XxHash3_64::oneshot(&to_json(header)))
}

fn to_json(header: &Header) -> Vec<u8> {
    serde_json::to_vec(header).expect("numbers and texts are JSON")
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::Way;
    use super::*;

    fn header() -> Header {
        let mut header = Header::new("backup.x.snap.1.23", 11 << 30, 0xfeed_0000_0000_0001);
        header.list(ChunkList::from_iter([0, 1, 2, 7, 9, 10]));
        header
    }

    #[test]
    fn what_is_stored_is_read() {
        let mut header = header();
        header.older = Some(Older {
            backup: "246c011b-8fab-4538-90c2-f0ded6b69811"
                .parse()
                .expect("an id"),
            snapshot: "backup.y.snap.1.00".to_owned(),
        });
        header.whole = false;
        header.rollback = Some(Rollback::Changes(vec![(4 << 20, 65536)]));
        header.set = Some("5e7".to_owned());
        header.others = vec![Some("5e8".to_owned()), None];
        let read = Header::decode(&header.encode()).expect("a header");
        assert_eq!(read, header);
        assert_eq!(read.seed(), 0xfeed_0000_0000_0001);
    }

    #[test]
    fn what_was_stored_once_is_read_for_ever() {
        let stored = concat!(
            r#"{"version":1,"digest":"xxh3-128","grain":65536,"seed":"feed000000000001","#,
            r#""snapshot":"backup.x.snap.1.23","size":11811160064,"older":null,"rollback":null,"#,
            r#""whole":true,"chunks":[[0,2],[7,7],[9,10]],"set":null,"check":"59d84c611783a1f5"}"#
        );
        assert_eq!(String::from_utf8_lossy(&header().encode()), stored);
        let read = Header::decode(stored.as_bytes()).expect("a header");
        assert_eq!(read, header());
    }

    #[test]
    fn a_draft_tells_how_far_the_backup_is() {
        let mut draft = header().draft();
        assert!(draft.is_draft() && !header().is_draft());
        draft.checkpoint = Some(Checkpoint {
            way: Way {
                snapshot: 7,
                image: "rbd_data.1f.0000000000000000".to_owned(),
            },
            chunks: ChunkList::from_iter([3, 10]),
        });
        let read = Header::decode(&draft.encode()).expect("a header");
        assert_eq!(read, draft);
        draft.size = 10 << 30;
        Header::decode(&draft.encode()).expect_err("a chunk behind the end");
    }

    #[test]
    fn a_long_value_is_not_told_as_a_whole() {
        let long = "x".repeat(1 << 20);
        let mut wrong = [header(), header()];
        wrong[0].digest = long.clone();
        wrong[1].seed = long.clone();
        let wrong = wrong.map(|header| header.encode());
        let typed = format!("{{\"version\": \"{long}\"}}").into_bytes();
        for stored in wrong.iter().chain([&typed]) {
            let error = Header::decode(stored).expect_err("wrong");
            assert!(error.to_string().len() < 2000);
        }
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        // Whoever writes a right checksum may be wrong in everything else.
        let mut sound = header();
        sound.check = "x".to_owned();
        let sound = String::from_utf8(to_json(&sound)).expect("text");
        let stored = String::from_utf8(header().encode()).expect("text");
        assert!(Header::decode(sound.as_bytes()).is_err(), "{sound}");
        for (was, is) in [
            ("\"snapshot\":\"backup.x", "\"snapshot\":\"backup.y"),
            ("\"version\":1", "\"version\":2"),
            ("xxh3-128", "crc32c"),
            ("\"grain\":65536", "\"grain\":4096"),
            ("\"whole\":true,", ""),
        ] {
            assert!(stored.contains(was), "{stored}");
            let changed = stored.replace(was, is);
            assert!(Header::decode(changed.as_bytes()).is_err(), "{changed}");
        }
        let mut wrong = [header(), header(), header()];
        wrong[0].size = 10 << 30;
        wrong[1].size = u64::MAX;
        wrong[2].seed = "feel".to_owned();
        for wrong in wrong {
            assert!(Header::decode(&wrong.encode()).is_err(), "{wrong:?}");
        }
    }
}
