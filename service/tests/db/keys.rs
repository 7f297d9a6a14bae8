//! Which keys the rows name: a key is replaced only where it is the one that was read.

use api_compat::state::{BackupStatus, VolumeStatus};
use cinderblock::db::NewKey;
use cinderblock::db::entity::{backups, snapshots, volumes};
use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, EntityTrait};
use uuid::Uuid;

use crate::lab::{Lab, now};

#[tokio::test]
async fn a_key_is_replaced_where_it_is_the_one_that_was_read() {
    let lab = Lab::new().await;
    let backup = lab.backup(BackupStatus::Creating, |_| ()).await;
    let replace = async |status, from, to| {
        let new = NewKey {
            backup,
            status,
            from,
            to,
        };
        let replaced = lab.db.replace_backup_key(new, now()).await;
        let row = lab.backup_row(backup).await;
        (replaced.expect("update"), row.encryption_key_id)
    };
    let key = |key: &str| Some(key.to_owned());
    let (creating, other) = (Some(BackupStatus::Creating), Some(BackupStatus::Deleting));
    assert_eq!(replace(other, None, Some("a")).await, (false, None));
    assert_eq!(replace(creating, None, Some("a")).await, (true, key("a")));
    // Written by an earlier try, or by another.
    assert_eq!(replace(creating, None, Some("a")).await, (true, key("a")));
    assert_eq!(replace(creating, None, Some("b")).await, (false, key("a")));
    assert_eq!(replace(None, Some("b"), None).await, (false, key("a")));
    assert_eq!(replace(None, Some("a"), Some("b")).await, (true, key("b")));
    assert_eq!(replace(None, Some("b"), None).await, (true, None));
}

#[tokio::test]
async fn backups_are_found_by_host_and_key() {
    let lab = Lab::new().await;
    let (host, key) = (
        format!("Host-{}", Uuid::new_v4()),
        Uuid::new_v4().to_string(),
    );
    let of = async |host: &str, key: &str, deleted: bool| {
        let (host, key) = (host.to_owned(), key.to_owned());
        lab.backup(BackupStatus::Available, |row| {
            row.host = Set(Some(host));
            row.encryption_key_id = Set(Some(key));
            row.deleted = Set(Some(deleted));
        })
        .await
    };
    let wanted = of(&host, &key, false).await;
    of(&host, &key, true).await;
    of(&host.to_lowercase(), &key, false).await;
    of(&host, "another", false).await;
    let found = lab.db.backups_with_key(&host, &key).await.expect("query");
    let found: Vec<_> = found.iter().map(|row| row.id).collect();
    assert_eq!(found, [wanted]);
}

#[tokio::test]
async fn a_key_that_a_backup_shares_is_known_however_it_is_written() {
    let lab = Lab::new().await;
    let keyed = async |key: &str| {
        let key = key.to_owned();
        let fill = |row: &mut backups::ActiveModel| row.encryption_key_id = Set(Some(key));
        lab.backup(BackupStatus::Available, fill).await
    };
    let is_shared =
        async |backup, key: &str| lab.db.is_key_of_another(backup, key).await.expect("query");
    let key = || Uuid::new_v4().to_string();

    let own = key();
    let backup = keyed(&own).await;
    assert!(!is_shared(backup, &own).await);
    let other = keyed(&own).await;
    assert!(is_shared(backup, &own).await);
    let row = backups::ActiveModel {
        id: Set(other.to_string()),
        deleted: Set(Some(true)),
        ..Default::default()
    };
    row.update(&lab.raw).await.expect("update");
    assert!(!is_shared(backup, &own).await);

    let volumes = key();
    let fill = |row: &mut volumes::ActiveModel| {
        row.encryption_key_id = Set(Some(volumes.clone()));
    };
    let volume = lab.volume(VolumeStatus::Available, fill).await;
    for written in [
        volumes.clone(),
        volumes.replace('-', "").to_uppercase(),
        format!("http://barbican/v1/secrets/{volumes}"),
    ] {
        assert!(is_shared(backup, &written).await, "{written}");
    }

    let snapshots = key();
    let snapshot = lab.snapshot(volume, "available").await;
    assert!(!is_shared(backup, &snapshots).await);
    let row = snapshots::ActiveModel {
        id: Set(snapshot.to_string()),
        encryption_key_id: Set(Some(snapshots.clone())),
        ..Default::default()
    };
    row.update(&lab.raw).await.expect("update");
    assert!(is_shared(backup, &snapshots).await);
}

#[tokio::test]
async fn a_key_of_a_snapshot_is_known() {
    let lab = Lab::new().await;
    let volume = lab.volume(VolumeStatus::Available, |_| ()).await;
    let snapshot = lab.snapshot(volume, "available").await;
    let is_known = async |key| lab.db.is_key_of_snapshot(volume, key).await.expect("query");
    assert!(!is_known("a").await);
    let row = snapshots::Entity::find_by_id(snapshot.to_string());
    let row = row.one(&lab.raw).await.expect("query").expect("a snapshot");
    let mut row: snapshots::ActiveModel = row.into();
    row.encryption_key_id = Set(Some("a".to_owned()));
    row.update(&lab.raw).await.expect("update");
    assert!(is_known("a").await);
    assert!(!is_known("b").await);
}
