//! What an image or volume holds, wherever it is kept.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};

const BLOCK: usize = 4096;

/// Bytes of a file that are read at a time.
const PIECE: usize = 1 << 20;

/// The size of an image or volume, and a checksum of its blocks that are not zero, with their places:
/// quick where little is stored, and the same however that is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    size: u64,
    checksum: u64,
}

impl fmt::Display for Content {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} bytes, {:016x}", self.size, self.checksum)
    }
}

impl Content {
    /// Of what `rbd export-diff` prints about an image from its beginning.
    pub(crate) fn of_diff(diff: &[u8]) -> Result<Self> {
        let mut rest = diff
            .strip_prefix(b"rbd diff v1\n")
            .context("no diff of version 1")?;
        let (mut size, mut blocks) = (None, Blocks::default());
        loop {
            match take(&mut rest, 1)?[0] {
                // The snapshots' names, with a length.
                b'f' | b't' => {
                    let length = u32::from_le_bytes(take(&mut rest, 4)?.try_into()?);
                    take(&mut rest, usize::try_from(length)?)?;
                }
                b's' => size = Some(number(&mut rest)?),
                b'w' => {
                    let (offset, length) = (number(&mut rest)?, number(&mut rest)?);
                    blocks.put(offset, take(&mut rest, usize::try_from(length)?)?)?;
                }
                b'z' => _ = (number(&mut rest)?, number(&mut rest)?),
                b'e' => break,
                other => bail!("a record of kind {other}"),
            }
        }
        Ok(blocks.sum(size.context("no size")?))
    }

    /// Of a file, or of its first bytes.
    pub(crate) fn of_file(path: &Path, most: u64) -> Result<Self> {
        let mut file = File::open(path).with_context(|| format!("{path:?}"))?;
        let (mut size, mut blocks) = (0, Blocks::default());
        let mut piece = vec![0; PIECE];
        while size < most {
            let wanted = usize::try_from(most - size).unwrap_or(PIECE).min(PIECE);
            let read = match file.read(&mut piece[..wanted]) {
                Ok(0) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read?,
            };
            blocks.put(size, &piece[..read])?;
            size += u64::try_from(read)?;
        }
        Ok(blocks.sum(size))
    }
}

/// The blocks that are not zero, by their places.
#[derive(Default)]
struct Blocks(BTreeMap<usize, [u8; BLOCK]>);

impl Blocks {
    fn put(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let (mut at, mut rest) = (usize::try_from(offset)?, data);
        while !rest.is_empty() {
            let (block, begin) = (at / BLOCK, at % BLOCK);
            let (part, more) = rest.split_at(rest.len().min(BLOCK - begin));
            if part != &[0; BLOCK][..part.len()] {
                let whole = self.0.entry(block).or_insert([0; BLOCK]);
                whole[begin..begin + part.len()].copy_from_slice(part);
            }
            (at, rest) = (at + part.len(), more);
        }
        Ok(())
    }

    fn sum(&self, size: u64) -> Content {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        Content {
            size,
            checksum: hasher.finish(),
        }
    }
}

fn number(rest: &mut &[u8]) -> Result<u64> {
    Ok(u64::from_le_bytes(take(rest, 8)?.try_into()?))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, more) = rest.split_at_checked(length).context("cut off")?;
    *rest = more;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 4 * BLOCK;

    fn content(records: &[(usize, &[u8])]) -> Result<Content> {
        let mut diff = b"rbd diff v1\ns".to_vec();
        diff.extend(SIZE.to_le_bytes());
        for (offset, data) in records {
            diff.push(b'w');
            diff.extend(offset.to_le_bytes());
            diff.extend(data.len().to_le_bytes());
            diff.extend(*data);
        }
        diff.push(b'e');
        Content::of_diff(&diff)
    }

    #[test]
    fn zeros_count_for_nothing_and_places_do() -> Result<()> {
        let (zero, data) = ([0; BLOCK], [7; BLOCK]);
        let plain = content(&[(BLOCK, &data)])?;
        let joined = [zero, data].concat();
        assert_eq!(plain, content(&[(0, &joined)])?);
        assert_eq!(plain, content(&[(0, &zero), (BLOCK, &data)])?);
        assert_ne!(plain, content(&[(2 * BLOCK, &data)])?);
        let parts = [(BLOCK, &data[..1000]), (BLOCK + 1000, &data[1000..])];
        assert_eq!(plain, content(&parts)?);
        assert_ne!(plain, content(&parts[..1])?);
        Ok(())
    }

    #[test]
    fn a_file_holds_what_an_image_does() -> Result<()> {
        let data = [7; BLOCK];
        let path = std::env::temp_dir().join(format!("content-{}", std::process::id()));
        let whole = [&[0; BLOCK][..], &data, &[0; 2 * BLOCK]].concat();
        std::fs::write(&path, &whole)?;
        let (file, first) = (
            Content::of_file(&path, u64::MAX),
            Content::of_file(&path, 100),
        );
        std::fs::remove_file(&path)?;
        let file = file?;
        assert_eq!(file, content(&[(BLOCK, &data)])?);
        assert_ne!(file, first?);
        Ok(())
    }
}
