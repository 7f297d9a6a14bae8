//! Whether the object map of a volume is believed.

use std::fs;

use api_compat::names;
use cinderblock::vault::{BackupPlan, Error, Method, Vault};
use serde_json::{Value, json};
use twox_hash::XxHash3_64;

use crate::ceph_lab::{MIB, Noise, assert_same, content, volumes};
use crate::{Source, rados, restore_point, vault};

/// A volume of many small objects, all of which hold data.
async fn volume_of_small_objects(size: u64, noise: &mut Noise) -> Source {
    let mut source = Source::new(0).await;
    let site = volumes().await;
    let layout = ["--object-size", "64K"];
    let (name, image) = site.image_laid_out(size, &layout).await;
    source.volume.image.clone_from(&name.name);
    source._name = name;
    std::mem::replace(&mut source.image, image).close().await;
    source.write(0, noise.bytes(size)).await;
    source
}

/// As Cinder reverts a volume to a snapshot.
async fn roll_back(source: &mut Source, snapshot: &str) {
    let site = volumes().await;
    let unlocked = site.pool.open_rw(&source.volume.image).await;
    let unlocked = unlocked.expect("it opens");
    std::mem::replace(&mut source.image, unlocked).close().await;
    let at = format!("volumes/{}@{snapshot}", source.volume.image);
    site.rbd(&["snap", "rollback", "--no-progress", &at]);
    source.image.size().await.expect("size");
}

async fn snapshot(source: &Source, name: &str) {
    source.image.create_snapshot(name).await.expect("snapshot");
}

/// What a backup's manifest says of rollbacks; `becomes` is written in its place.
fn rollback_in_manifest(plan: &BackupPlan, becomes: Option<Value>) -> Value {
    let object = names::manifest_object(plan.backup);
    let path = std::env::temp_dir().join(&object);
    let file = path.to_str().expect("text");
    rados(&["get", &object, file]);
    let stored = fs::read_to_string(&path).expect("it is read");
    let header: Value = serde_json::from_str(&stored).expect("JSON");
    if let Some(becomes) = becomes {
        let field = |value: &Value| format!("\"rollback\":{value}");
        let check = |text: &str| format!("\"check\":\"{text}\"");
        let was = check(header["check"].as_str().expect("a text"));
        let changed = stored.replace(&field(&header["rollback"]), &field(&becomes));
        let changed = changed.replace(&was, &check(""));
        assert_ne!(changed, stored.replace(&was, &check("")));
        let sum = format!("{:016x}", XxHash3_64::oneshot(changed.as_bytes()));
        fs::write(&path, changed.replace(&check(""), &check(&sum))).expect("it is written");
        rados(&["put", &object, file]);
    }
    fs::remove_file(&path).expect("it is removed");
    header["rollback"].clone()
}

async fn assert_stored(source: &Source, plan: &BackupPlan) {
    let expected = content(&source.image).await;
    assert_same(&restore_point(plan).await, &expected);
}

#[tokio::test]
async fn a_rollback_to_what_is_older_than_the_parent_is_noticed() {
    let (vault, mut noise) = (vault(), Noise::new(61));
    for idle in [false, true] {
        let mut source = Source::new(24 * MIB).await;
        source.write(0, noise.bytes(20 * MIB)).await;
        // The second one's object map marks nothing as changed.
        snapshot(&source, "first").await;
        snapshot(&source, "second").await;
        source.write(5 * MIB, noise.bytes(MIB)).await;
        let mut chain = vec![source.back_up(&vault, None).await];
        assert!(rollback_in_manifest(&chain[0], None)["changes"].is_array());
        if idle {
            // Nothing has changed since, and what is known of its parent holds for this one.
            snapshot(&source, "third").await;
            chain.push(source.back_up(&vault, chain.last()).await);
            let known = |plan: &BackupPlan| rollback_in_manifest(plan, None);
            assert_eq!(known(&chain[0]), known(&chain[1]));
        }
        roll_back(&mut source, "second").await;
        let plan = source.back_up(&vault, chain.last()).await;
        assert!(matches!(plan.method, Method::Incremental { .. }));
        assert_stored(&source, &plan).await;
        chain.push(plan);

        // The next one knows of that, too.
        source.write(17 * MIB, noise.bytes(4096)).await;
        chain.push(source.back_up(&vault, chain.last()).await);
        assert_stored(&source, &chain[chain.len() - 1]).await;
        source.delete(&vault, &chain).await;
        source.image.close().await;
    }
}

#[tokio::test]
async fn without_older_snapshots_nothing_can_be_rolled_back() {
    let (vault, mut noise) = (vault(), Noise::new(62));
    let source = Source::new(24 * MIB).await;
    source.write(0, noise.bytes(9 * MIB)).await;
    let full = source.back_up(&vault, None).await;
    assert_eq!(rollback_in_manifest(&full, None), "impossible");
    source.write(5 * MIB, noise.bytes(4096)).await;
    let next = source.back_up(&vault, Some(&full)).await;
    // The full backup's snapshot is older.
    let changes = json!({"changes": [[4 * MIB, 4 * MIB]]});
    assert_eq!(rollback_in_manifest(&next, None), changes);
    source.write(21 * MIB, noise.bytes(4096)).await;
    let last = source.back_up(&vault, Some(&next)).await;
    assert_stored(&source, &last).await;
    source.delete(&vault, [&full, &next, &last]).await;
    source.image.close().await;
}

/// Makes a backup with a map that is wrong about `wrong` bytes, and is said to be right.
async fn back_up_with_wrong_map(
    vault: &Vault,
    noise: &mut Noise,
    wrong: u64,
) -> (Source, BackupPlan, BackupPlan, Result<(), Error>) {
    let mut source = volume_of_small_objects(32 * MIB, noise).await;
    snapshot(&source, "first").await;
    snapshot(&source, "second").await;
    source.write(3 * MIB, noise.bytes(wrong)).await;
    let full = source.back_up(vault, None).await;
    rollback_in_manifest(&full, Some(json!("impossible")));
    roll_back(&mut source, "second").await;
    let plan = source.plan(vault, Some(&full)).await;
    let stored = source.try_store(vault, &plan).await;
    (source, full, plan, stored)
}

#[tokio::test]
async fn a_map_that_is_wrong_about_much_is_found_out() {
    let (vault, mut noise) = (vault(), Noise::new(63));
    let made = back_up_with_wrong_map(&vault, &mut noise, 29 * MIB).await;
    let (source, full, plan, stored) = made;
    let error = stored.expect_err("the map is wrong");
    assert!(matches!(error, Error::WrongMap(_)), "{error}");
    vault.undo(&plan, &source.volume).await;
    let compared = plan.instead(&error).expect("another way");
    assert_eq!(compared.method, Method::Compared);
    source.store(&vault, &compared).await;
    assert_stored(&source, &compared).await;
    source.delete(&vault, [&full, &compared]).await;
    source.image.close().await;
}

/// Otherwise nobody would notice that every object is asked for after all.
#[tokio::test]
async fn a_map_that_nothing_speaks_against_is_believed() {
    let (vault, mut noise) = (vault(), Noise::new(64));
    let made = back_up_with_wrong_map(&vault, &mut noise, 4096).await;
    let (source, full, plan, stored) = made;
    match stored {
        Ok(()) => assert!(restore_point(&plan).await != content(&source.image).await),
        // One of 512 objects, of which sixteen are compared.
        Err(error) => {
            assert!(matches!(error, Error::WrongMap(_)), "{error}");
            vault.undo(&plan, &source.volume).await;
        }
    }
    source.delete(&vault, [&full, &plan]).await;
    source.image.close().await;
}
