//! Images that are closed as soon as they are open.

use std::process::Command;

use crate::ceph_lab::{MIB, volumes};

/// Opened and closed at a time, and how often each.
const AT_ONCE: usize = 8;
const TIMES: usize = 150;

/// librbd 16.2 uses memory that it has freed if an image is closed too soon. As a rule the memory still holds
/// what it held; here it is filled when it is freed, so that the process ends.
#[tokio::test]
async fn what_is_closed_at_once_ends_no_process() {
    let this = std::env::current_exe().expect("a program");
    let child = Command::new(this)
        .args(["--ignored", "--exact", "closing::open_and_close"])
        .env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")
        .env("MALLOC_PERTURB_", "15")
        .output()
        .expect("it starts");
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(told.contains("1 passed"), "{child:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "is run by the test above, in a process of its own"]
async fn open_and_close() {
    let site = volumes().await;
    let (scratch, image) = site.usual_image(4 * MIB).await;
    image.create_snapshot("snap").await.expect("snapshot");
    let tasks = (0..AT_ONCE).map(|_| {
        let (pool, name) = (site.pool.clone(), scratch.name.clone());
        tokio::spawn(async move {
            for _ in 0..TIMES {
                let image = pool.open(&name, Some("snap")).await.expect("it opens");
                image.close().await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("it ends");
    }
    image.close().await;
}
