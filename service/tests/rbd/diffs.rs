//! What changed since a snapshot.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use cinderblock::rbd::{Change, DiffQuery, ErrorKind, Image};
use futures_util::FutureExt;

use crate::ceph_lab::{MIB, Noise, volumes};
use crate::kind;

async fn changes(image: &Image, from: Option<&str>, whole_objects: bool) -> Vec<Change> {
    let query = DiffQuery {
        from: from.map(str::to_owned),
        range: 0..image.known_size(),
        include_parent: true,
        whole_objects,
    };
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    image
        .diff(query, move |change| {
            let _ = sender.send(change);
            ControlFlow::Continue(())
        })
        .await
        .expect("diff");
    let mut changes = Vec::new();
    while let Some(change) = receiver.recv().await {
        changes.push(change);
    }
    changes.sort_by_key(|change| change.offset);
    changes
}

#[tokio::test]
async fn a_diff_names_bytes_or_objects() {
    let site = volumes().await;
    let (_name, image) = site.usual_image(40 * MIB).await;
    image
        .write(8 * MIB, Noise::new(9).bytes(4 * MIB))
        .await
        .expect("write");
    image.create_snapshot("one").await.expect("snapshot");
    image
        .write(8 * MIB + 4096, Bytes::from(vec![1; 8192]))
        .await
        .expect("write");
    image.create_snapshot("two").await.expect("snapshot");
    image.write_zeroes(8 * MIB, 4 * MIB).await.expect("zero");
    image.create_snapshot("three").await.expect("snapshot");

    let change = |offset, length, exists| Change {
        offset,
        length,
        exists,
    };
    let two = image.open_at("two").await.expect("open");
    assert_eq!(
        changes(&two, Some("one"), false).await,
        [change(8 * MIB + 4096, 8192, true)]
    );
    assert_eq!(
        changes(&two, Some("one"), true).await,
        [change(8 * MIB, 4 * MIB, true)]
    );
    let three = image.open_at("three").await.expect("open");
    assert_eq!(
        changes(&three, Some("two"), false).await,
        [change(8 * MIB, 4 * MIB, false)]
    );
    assert_eq!(changes(&three, None, false).await, []);

    let query = |from: &str| DiffQuery {
        from: Some(from.to_owned()),
        range: 0..40 * MIB,
        include_parent: false,
        whole_objects: false,
    };
    let go_on = |_| ControlFlow::Continue(());
    assert_eq!(
        kind(two.diff(query("no"), go_on).await),
        ErrorKind::NotFound
    );
    assert_eq!(
        kind(two.diff(query("three"), go_on).await),
        ErrorKind::InvalidArgument
    );
    for image in [two, three, image] {
        image.close().await;
    }
}

#[tokio::test]
async fn a_diff_can_be_stopped_and_a_panic_comes_through() {
    let site = volumes().await;
    let (_name, image) = site.usual_image(64 * MIB).await;
    for object in 0..16 {
        image
            .write(object * 4 * MIB, Bytes::from_static(b"x"))
            .await
            .expect("write");
    }
    let query = DiffQuery {
        from: None,
        range: 0..64 * MIB,
        include_parent: true,
        whole_objects: false,
    };
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    image
        .diff(query.clone(), move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            ControlFlow::Break(())
        })
        .await
        .expect("stopping is no error");
    assert_eq!(seen.load(Ordering::SeqCst), 1);

    let walk = image.diff(query, |_| panic!("on purpose"));
    let outcome = std::panic::AssertUnwindSafe(walk).catch_unwind().await;
    assert!(outcome.is_err());
    image.close().await;
}
