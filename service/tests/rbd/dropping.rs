//! Futures and handles that are dropped with operations under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use cinderblock::rbd::{Cluster, ClusterOptions};
use futures_util::FutureExt;

use crate::ceph_lab::{MIB, Noise, content, volumes};

/// A buffer that counts how many of its kind are alive.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl Counted {
    fn new(length: usize, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(vec![7; length], Arc::clone(alive))
    }
}

impl AsMut<[u8]> for Counted {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn dropped_futures_leave_nothing_behind() {
    let site = volumes().await;
    let (name, image) = site.usual_image(64 * MIB).await;
    let alive = Arc::new(AtomicUsize::new(0));
    let length = (2 * MIB) as usize;
    let mut under_way = 0;
    for step in 0..32 {
        let offset = step * 2 * MIB;
        let data = Bytes::from_owner(Counted::new(length, &alive));
        // Polled once: submitted, and then forgotten.
        under_way += usize::from(image.write(offset, data).now_or_never().is_none());
        let buffer = Counted::new(length, &alive);
        under_way += usize::from(image.read(offset, buffer).now_or_never().is_none());
        under_way += usize::from(image.flush().now_or_never().is_none());
    }
    assert!(under_way > 0, "nothing was cut off");
    image.close().await;
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    let reader = site.pool.open(&name.name, None).await.expect("open");
    assert!(content(&reader).await.iter().all(|byte| *byte == 7));
    reader.close().await;
}

#[tokio::test]
async fn handles_may_be_dropped_in_any_order_with_operations_under_way() {
    let site = volumes().await;
    let (name, image) = site.usual_image(16 * MIB).await;
    let write = image.write(0, Noise::new(8).bytes(8 * MIB));
    let _ = write.now_or_never();
    drop(image);
    let (cluster, conf) = (site.cluster, site.conf);
    drop(site.pool);
    drop(cluster);
    let other = Cluster::connect(ClusterOptions::new("admin").conf_file(&conf))
        .await
        .expect("connect");
    let pool = other.pool("volumes").await.expect("pool");
    let image = pool.open(&name.name, None).await.expect("open");
    assert_eq!(content(&image).await.len() as u64, 16 * MIB);
}
