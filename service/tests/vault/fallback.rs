//! Another way to make a backup after one that failed.

use std::pin::pin;

use cinderblock::transfer::Job;
use cinderblock::vault::{BackupPlan, Method};

use crate::ceph_lab::{MIB, Noise, assert_same, backups, content};
use crate::{Source, assert_waits, restore_point, vault};

#[tokio::test]
async fn byte_by_byte_it_is_the_same_backup() {
    let vault = vault();
    let source = Source::new(24 * MIB).await;
    source.write(9 * MIB, Noise::new(6).bytes(5 * MIB)).await;
    let whole = BackupPlan {
        method: Method::Whole,
        ..source.plan(&vault, None).await
    };
    let job = Job::default();
    let storing = vault.store(&whole, &source.volume, &job);
    let stats = storing.await.expect("stored");
    assert_eq!(stats.bytes_read, 24 * MIB);
    assert!(stats.bytes_written < 6 * MIB, "{stats:?}");
    let expected = content(&source.image).await;
    assert_same(&restore_point(&whole).await, &expected);

    // An incremental builds on it.
    source.write(0, Noise::new(7).bytes(4096)).await;
    let next = source.back_up(&vault, Some(&whole)).await;
    assert!(matches!(next.method, Method::Incremental { .. }));
    let expected = content(&source.image).await;
    assert_same(&restore_point(&next).await, &expected);
    source.delete(&vault, [&whole, &next]).await;
    source.image.close().await;
}

#[tokio::test]
async fn after_an_incremental_that_failed_its_image_is_compared_and_then_left() {
    let vault = vault();
    let source = Source::new(24 * MIB).await;
    source.write(0, Noise::new(8).bytes(3 * MIB)).await;
    let full = source.back_up(&vault, None).await;
    source.write(MIB, Noise::new(9).bytes(MIB)).await;
    let plan = source.plan(&vault, Some(&full)).await;

    let rival = backups().await.pool.open_rw(&full.base.to_string()).await;
    let rival = rival.expect("open");
    rival.own().await.expect("own");
    let error = {
        let mut storing = pin!(source.try_store(&vault, &plan));
        assert_waits(storing.as_mut(), &plan).await;
        let gone = source.image.remove_snapshot(&full.snapshot).await;
        gone.expect("remove");
        rival.close().await;
        storing.await.expect_err("a snapshot is missing")
    };
    vault.undo(&plan, &source.volume).await;

    let compared = plan.instead(&error).expect("another way");
    assert_eq!(compared.method, Method::Compared);
    assert_eq!(compared.base, full.base);
    let rival = backups().await.pool.open_rw(&full.base.to_string()).await;
    let rival = rival.expect("open");
    rival.own().await.expect("own");
    let error = {
        let mut storing = pin!(source.try_store(&vault, &compared));
        assert_waits(storing.as_mut(), &compared).await;
        let gone = source.image.remove_snapshot(&compared.snapshot).await;
        gone.expect("remove");
        rival.close().await;
        storing.await.expect_err("a snapshot is missing")
    };
    vault.undo(&compared, &source.volume).await;

    let instead = compared.instead(&error).expect("another way");
    assert_eq!(instead.method, Method::Full);
    assert_ne!(instead.base, full.base);
    source.store(&vault, &instead).await;
    let expected = content(&source.image).await;
    assert_same(&restore_point(&instead).await, &expected);
    vault
        .delete(&source.record(&instead, true))
        .await
        .expect("delete");
    source.delete(&vault, [&full]).await;
    source.image.close().await;
}

#[tokio::test]
async fn what_another_attempt_has_made_is_found_and_not_undone() {
    let vault = vault();
    let source = Source::new(24 * MIB).await;
    source.write(0, Noise::new(10).bytes(3 * MIB)).await;
    let full = source.back_up(&vault, None).await;
    source.write(MIB, Noise::new(11).bytes(MIB)).await;
    let plan = source.plan(&vault, Some(&full)).await;

    // Another worker has got the same request, and is the first to own the image.
    let other = backups().await.pool.open_rw(&full.base.to_string()).await;
    let other = other.expect("open");
    other.own().await.expect("own");
    let taken = source.image.create_snapshot(&plan.snapshot).await;
    taken.expect("the other's snapshot");
    {
        let mut storing = pin!(source.try_store(&vault, &plan));
        assert_waits(storing.as_mut(), &plan).await;
        let data = Noise::new(11).bytes(MIB);
        other.write(MIB, data).await.expect("the other's data");
        let made = other.create_snapshot(&plan.snapshot).await;
        made.expect("the other's restore point");
        other.close().await;
        storing.await.expect("it stands");
    }
    vault.undo(&plan, &source.volume).await;
    let expected = content(&source.image).await;
    assert_same(&restore_point(&plan).await, &expected);
    assert!(source.snapshots().await.contains(&plan.snapshot));

    // What this one has made goes.
    let next = source.back_up(&vault, Some(&plan)).await;
    vault.undo(&next, &source.volume).await;
    assert!(!source.snapshots().await.contains(&next.snapshot));
    source.delete(&vault, [&full, &plan]).await;
    source.image.close().await;
}
