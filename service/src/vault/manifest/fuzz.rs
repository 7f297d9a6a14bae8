//! Whatever lies in the pool where a manifest should be.

use cinderblock_fuzz::{assert_short, in_proportion, run, run_within};
use serde_json::Value;
use twox_hash::XxHash3_64;

use super::chunk::{Chunk, GRAINS, LIMIT};
use super::header::Header;

#[test]
fn manifest_headers() {
    run("manifest_headers", |input| {
        // As it is, and with a right checksum, so that what lies behind it is reached.
        check_header(input);
        let Ok(mut value) = serde_json::from_slice::<Value>(input) else {
            return;
        };
        if let Some(check) = value.get_mut("check") {
            *check = "".into();
        }
        if let Ok(header) = serde_json::from_value::<Header>(value) {
            check_header(&header.encode());
        }
    });
}

fn check_header(stored: &[u8]) {
    let header = match Header::decode(stored) {
        Ok(header) => header,
        Err(error) => return assert_short(&error),
    };
    assert_eq!(Header::decode(&header.encode()).expect("ours"), header);
    let possible = header.possible_chunks();
    let mut least = 0;
    // The first thousand: a list of a few bytes may name millions.
    for chunk in header.chunks().take(1000) {
        assert!(chunk >= least && possible.contains(&chunk) && header.has(chunk));
        least = chunk + 1;
    }
    assert!(!header.has(possible.end));
}

#[test]
fn manifest_chunks() {
    // A run of zeros takes five bytes, whatever its length: a chunk's digests at most, whoever asks for it.
    let memory = |length| in_proportion(length) + 64 * GRAINS;
    run_within("manifest_chunks", memory, |input| {
        let checked = [input, &XxHash3_64::oneshot(input).to_be_bytes()].concat();
        for stored in [input, &checked] {
            match Chunk::decode(stored) {
                Ok(chunk) => {
                    assert!(chunk.iter().all(|(grain, _)| u64::from(grain) < GRAINS));
                    let again = chunk.encode();
                    assert!(again.len() <= LIMIT);
                    assert_eq!(Chunk::decode(&again), Ok(chunk));
                }
                Err(error) => assert_short(&error),
            }
        }
    });
}
