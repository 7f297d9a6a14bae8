//! Bodies that kombu has compressed (`kombu_compression`), for requests and for answers alike.
//!
//! The header `compression` names the method (kombu `compression.py`). What it calls gzip is zlib's
//! format, with neither gzip's header nor its checksum.

use std::borrow::Cow;
use std::io::Read;

use bzip2::read::BzDecoder;
use flate2::read::ZlibDecoder;

use super::envelope::{DecodeError, MAX_BODY};

/// The header that names the method.
pub const HEADER: &str = "compression";

/// The body as it was before it was compressed; `method` is the header's value, if there is one.
///
/// # Errors
/// [`DecodeError::TooLarge`] if more than [`MAX_BODY`] bytes come out, which are not kept;
/// [`DecodeError::Compression`] for a method that we do not know;
/// [`DecodeError::Compressed`] if the body is not what the header says.
pub fn inflate<'a>(body: &'a [u8], method: Option<&str>) -> Result<Cow<'a, [u8]>, DecodeError> {
    match method {
        None | Some("") => Ok(Cow::Borrowed(body)),
        Some("application/x-gzip" | "gzip" | "zlib") => bounded(ZlibDecoder::new(body)),
        Some("application/x-bz2" | "bzip2" | "bzip") => bounded(BzDecoder::new(body)),
        Some(other) => Err(DecodeError::Compression(other.chars().take(64).collect())),
    }
}

fn bounded(decoder: impl Read) -> Result<Cow<'static, [u8]>, DecodeError> {
    let mut inflated = Vec::new();
    // One more than may be, by which too many are noticed.
    decoder
        .take(MAX_BODY as u64 + 1)
        .read_to_end(&mut inflated)
        .map_err(DecodeError::Compressed)?;
    match inflated.len() {
        0..=MAX_BODY => Ok(Cow::Owned(inflated)),
        length => Err(DecodeError::TooLarge(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bzip2::read::BzEncoder;
    use flate2::read::ZlibEncoder;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        let mut encoder = ZlibEncoder::new(body, flate2::Compression::best());
        encoder.read_to_end(&mut packed).unwrap();
        packed
    }

    fn bzip2(body: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        let mut encoder = BzEncoder::new(body, bzip2::Compression::best());
        encoder.read_to_end(&mut packed).unwrap();
        packed
    }

    #[test]
    fn what_was_compressed_comes_out() {
        let body = b"{\"method\": \"x\"}".as_slice();
        for (packed, method) in [
            (body.to_vec(), None),
            (body.to_vec(), Some("")),
            (gzip(body), Some("application/x-gzip")),
            (gzip(body), Some("gzip")),
            (bzip2(body), Some("application/x-bz2")),
        ] {
            assert_eq!(inflate(&packed, method).unwrap(), body, "{method:?}");
        }
    }

    #[test]
    fn a_small_body_that_inflates_beyond_the_limit_is_refused() {
        let zeroes = vec![0; MAX_BODY + 1];
        for (packed, method) in [
            (gzip(&zeroes), "application/x-gzip"),
            (bzip2(&zeroes), "application/x-bz2"),
        ] {
            assert!(packed.len() < 100_000);
            let refused = inflate(&packed, Some(method));
            assert!(matches!(refused, Err(DecodeError::TooLarge(_))), "{method}");
        }
        let most = gzip(&zeroes[1..]);
        assert!(inflate(&most, Some("application/x-gzip")).is_ok());
    }

    #[test]
    fn an_unknown_method_is_named_and_nonsense_is_refused() {
        let error = inflate(b"x", Some("application/zstd")).unwrap_err();
        assert!(error.to_string().contains("application/zstd"), "{error}");
        for method in ["application/x-gzip", "application/x-bz2"] {
            let refused = inflate(b"no such thing", Some(method));
            assert!(
                matches!(refused, Err(DecodeError::Compressed(_))),
                "{method}"
            );
        }
    }
}
