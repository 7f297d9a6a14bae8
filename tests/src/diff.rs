//! What `rbd export-diff` prints, read for what it says about an image.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context, Result, bail};

const BLOCK: usize = 4096;

/// The checksum of the blocks that are not zero, with their places.
pub(crate) fn checksum(diff: &[u8]) -> Result<String> {
    let mut rest = diff
        .strip_prefix(b"rbd diff v1\n")
        .context("no diff of version 1")?;
    let mut blocks = BTreeMap::new();
    loop {
        match take(&mut rest, 1)?[0] {
            // The snapshots' names, with a length.
            b'f' | b't' => {
                let length = u32::from_le_bytes(take(&mut rest, 4)?.try_into()?);
                take(&mut rest, usize::try_from(length)?)?;
            }
            // The image's size.
            b's' => _ = number(&mut rest)?,
            b'w' => {
                let (offset, length) = (number(&mut rest)?, number(&mut rest)?);
                put(&mut blocks, offset, take(&mut rest, length)?);
            }
            b'z' => _ = (number(&mut rest)?, number(&mut rest)?),
            b'e' => break,
            other => bail!("a record of kind {other}"),
        }
    }
    let mut hasher = DefaultHasher::new();
    blocks.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

fn put(blocks: &mut BTreeMap<usize, [u8; BLOCK]>, offset: usize, data: &[u8]) {
    for (index, byte) in data.iter().enumerate().filter(|(_, byte)| **byte != 0) {
        let at = offset + index;
        blocks.entry(at / BLOCK).or_insert([0; BLOCK])[at % BLOCK] = *byte;
    }
}

fn number(rest: &mut &[u8]) -> Result<usize> {
    let bytes = take(rest, 8)?.try_into()?;
    Ok(usize::try_from(u64::from_le_bytes(bytes))?)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, more) = rest.split_at_checked(length).context("cut off")?;
    *rest = more;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(records: &[(usize, &[u8])]) -> Vec<u8> {
        let mut diff = b"rbd diff v1\n".to_vec();
        for (offset, data) in records {
            diff.push(b'w');
            diff.extend(offset.to_le_bytes());
            diff.extend(data.len().to_le_bytes());
            diff.extend(*data);
        }
        diff.push(b'e');
        diff
    }

    #[test]
    fn zeros_count_for_nothing_and_places_do() -> Result<()> {
        let (zero, data) = ([0; BLOCK], [7; BLOCK]);
        let plain = checksum(&diff(&[(BLOCK, &data)]))?;
        let joined = [zero, data].concat();
        assert_eq!(plain, checksum(&diff(&[(0, &joined)]))?);
        assert_eq!(plain, checksum(&diff(&[(0, &zero), (BLOCK, &data)]))?);
        assert_ne!(plain, checksum(&diff(&[(2 * BLOCK, &data)]))?);
        let parts = [(BLOCK, &data[..1000]), (BLOCK + 1000, &data[1000..])];
        assert_eq!(plain, checksum(&diff(&parts))?);
        assert_ne!(plain, checksum(&diff(&parts[..1]))?);
        Ok(())
    }
}
