//! Where a backup is not what was stored.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::rbd::Image;

/// A damaged part of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Where it begins in the image, in bytes.
    pub offset: u64,
    /// How many bytes long it is.
    pub length: u64,
    /// The restore point, for the log.
    #[serde(skip)]
    pub image: String,
    /// The object that holds it.
    pub object: String,
    /// The pool that holds the object; `?` if nobody could tell.
    pub pool: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "bytes {} to {} of {} (object {} in pool {}) are not what was stored",
            self.offset,
            self.offset + self.length - 1,
            self.image,
            self.object,
            self.pool
        )
    }
}

/// A damaged range of an image as a whole, with the object in which it begins.
pub async fn begin(image: &Image, range: Range<u64>) -> Damage {
    Damage {
        offset: range.start,
        length: range.end - range.start,
        image: image.name().to_owned(),
        object: image.object_at(range.start),
        pool: pool_of(image).await,
    }
}

async fn pool_of(image: &Image) -> String {
    image.data_pool().await.unwrap_or_else(|_| "?".to_owned())
}

/// In which objects of an image a damaged range lies, in order.
pub async fn locate(image: &Image, range: Range<u64>) -> Vec<Damage> {
    let pool = pool_of(image).await;
    let mut found: Vec<Damage> = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let length = image.room_in_object(at).min(range.end - at);
        let object = image.object_at(at);
        match found.last_mut() {
            Some(last) if last.object == object => last.length += length,
            _ => found.push(Damage {
                offset: at,
                length,
                image: image.name().to_owned(),
                object,
                pool: pool.clone(),
            }),
        }
        at += length;
    }
    found
}
