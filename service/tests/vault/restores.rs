//! Restores into images.

use cinderblock::transfer::Job;
use cinderblock::vault::TargetSize;

use crate::ceph_lab::{MIB, Noise, assert_same, content};
use crate::{Source, vault_that};

#[tokio::test]
async fn a_volume_in_ceph_is_cleared_behind_the_backups_end_in_any_case() {
    let mut noise = Noise::new(51);
    let vault = vault_that(|engine| engine.zero_excess = false);
    let source = Source::new(8 * MIB).await;
    source.write(MIB, noise.bytes(3 * MIB)).await;
    let full = source.back_up(&vault, None).await;
    let target = Source::new(24 * MIB).await;
    target.write(0, noise.bytes(24 * MIB)).await;
    let record = source.record(&full, true);
    let point = vault.find_restore_point(&record).await.expect("found");
    let job = Job::default();
    let size = TargetSize::Exactly(24 * MIB);
    let restoring = vault.restore(&point, &target.volume, size, false, &job);
    restoring.await.expect("restored");
    let mut expected = content(&source.image).await;
    expected.resize(24 << 20, 0);
    assert_same(&content(&target.image).await, &expected);
    source.delete(&vault, [&full]).await;
    source.image.close().await;
    target.image.close().await;
}
