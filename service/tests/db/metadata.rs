//! What a restore writes of a volume besides its status.

use api_compat::ids::VolumeId;
use api_compat::state::VolumeStatus;
use api_compat::volume_metadata::{Change, Pairs};
use chrono::NaiveDateTime;
use cinderblock::db::entity::{volume_glance_metadata, volume_metadata, volumes};
use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use tokio::task::JoinSet;

use crate::lab::{Lab, TYPE, before, now};

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Pairs {
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

/// Inserts a volume with pairs of both kinds.
async fn volume(lab: &Lab, user: &Pairs, glance: &Pairs) -> VolumeId {
    let id = lab.volume(VolumeStatus::RestoringBackup, |_| ()).await;
    for (key, value) in user.clone() {
        let row = volume_metadata::ActiveModel {
            volume_id: Set(id.to_string()),
            key: Set(Some(key)),
            value: Set(Some(value)),
            created_at: Set(Some(before())),
            deleted: Set(Some(false)),
            ..Default::default()
        };
        row.insert(&lab.raw).await.expect("user pair");
    }
    for (key, value) in glance.clone() {
        let row = volume_glance_metadata::ActiveModel {
            volume_id: Set(Some(id.to_string())),
            key: Set(Some(key)),
            value: Set(Some(value)),
            created_at: Set(Some(before())),
            deleted: Set(Some(false)),
            ..Default::default()
        };
        row.insert(&lab.raw).await.expect("glance pair");
    }
    id
}

/// A pair's key and value, and when it was made, changed and deleted.
type Row = (String, String, [Option<NaiveDateTime>; 3]);

fn row(key: &str, value: &str, times: [Option<NaiveDateTime>; 3]) -> Row {
    (key.to_owned(), value.to_owned(), times)
}

async fn user_rows(lab: &Lab, volume: VolumeId) -> Vec<Row> {
    let rows = volume_metadata::Entity::find()
        .filter(volume_metadata::Column::VolumeId.eq(volume.to_string()))
        .order_by_asc(volume_metadata::Column::Id)
        .all(&lab.raw)
        .await
        .expect("query");
    rows.into_iter()
        .map(|row| {
            assert_eq!(row.deleted, Some(row.deleted_at.is_some()));
            let times = [row.created_at, row.updated_at, row.deleted_at];
            (row.key.unwrap(), row.value.unwrap(), times)
        })
        .collect()
}

async fn restore(lab: &Lab, volume: VolumeId, changes: &[Change]) {
    lab.db
        .restore_metadata(volume, changes, now())
        .await
        .expect("restore");
}

fn kept() -> [Option<NaiveDateTime>; 3] {
    [Some(before()), None, None]
}

fn changed() -> [Option<NaiveDateTime>; 3] {
    [Some(before()), Some(now()), None]
}

fn deleted() -> [Option<NaiveDateTime>; 3] {
    [Some(before()), None, Some(now())]
}

fn made() -> [Option<NaiveDateTime>; 3] {
    [Some(now()), None, None]
}

#[tokio::test]
async fn the_users_pairs_are_replaced() {
    let lab = Lab::new().await;
    let user = pairs([("gone", "1"), ("same", "2"), ("other", "3")]);
    let id = volume(&lab, &user, &pairs([("image", "stays")])).await;
    let wanted = pairs([("same", "2"), ("other", "4"), ("new", "5")]);
    restore(&lab, id, &[Change::UserMetadata(wanted.clone())]).await;
    let expected = [
        row("gone", "1", deleted()),
        row("same", "2", kept()),
        row("other", "4", changed()),
        row("new", "5", made()),
    ];
    assert_eq!(user_rows(&lab, id).await, expected);
    assert_eq!(lab.db.volume_metadata(id).await.expect("query"), wanted);
    let glance = lab.db.glance_metadata(id).await.expect("query");
    assert_eq!(glance, pairs([("image", "stays")]));
    assert_eq!(lab.volume_row(id).await.bootable, None);
}

#[tokio::test]
async fn keys_that_the_collation_takes_for_the_same_are_kept_apart() {
    let lab = Lab::new().await;
    let user = pairs([("os", "1"), ("OS", "2"), ("os ", "3"), ("ös", "4")]);
    let id = volume(&lab, &user, &Pairs::new()).await;
    let wanted = pairs([("OS", "9"), ("ÖS", "8"), ("os", "1")]);
    restore(&lab, id, &[Change::UserMetadata(wanted)]).await;
    let expected = [
        row("os", "1", kept()),
        row("OS", "9", changed()),
        row("os ", "3", deleted()),
        row("ös", "4", deleted()),
        row("ÖS", "8", made()),
    ];
    assert_eq!(user_rows(&lab, id).await, expected);
}

#[tokio::test]
async fn an_images_pairs_are_replaced_and_make_the_volume_bootable() {
    let lab = Lab::new().await;
    let user = pairs([("mine", "stays")]);
    let glance = pairs([("image_id", "old"), ("min_disk", "1")]);
    let id = volume(&lab, &user, &glance).await;
    let long = "x".repeat(60_000);
    let wanted = pairs([("image_id", "old"), ("os", &long)]);
    restore(&lab, id, &[Change::GlanceMetadata(wanted.clone())]).await;
    assert_eq!(lab.db.glance_metadata(id).await.expect("query"), wanted);
    assert_eq!(lab.db.volume_metadata(id).await.expect("query"), user);
    let rows = volume_glance_metadata::Entity::find()
        .filter(volume_glance_metadata::Column::VolumeId.eq(id.to_string()))
        .order_by_asc(volume_glance_metadata::Column::Id)
        .all(&lab.raw)
        .await
        .expect("query");
    let times: Vec<_> = rows
        .iter()
        .map(|row| [row.created_at, row.updated_at, row.deleted_at])
        .collect();
    assert_eq!(times, [deleted(), deleted(), made(), made()]);
    let row = lab.volume_row(id).await;
    assert_eq!((row.bootable, row.updated_at), (Some(true), Some(now())));
}

#[tokio::test]
async fn the_volumes_own_columns_are_restored() {
    let lab = Lab::new().await;
    let key = |row: &mut volumes::ActiveModel| {
        row.encryption_key_id = Set(Some("old".to_owned()));
        row.display_description = Set(Some("old".to_owned()));
    };
    let id = lab.volume(VolumeStatus::RestoringBackup, key).await;
    let changes = [
        Change::Name {
            name: "'; DROP TABLE volumes; -- \\".to_owned(),
            description: None,
        },
        Change::EncryptionKey(None),
        Change::VolumeType(TYPE.replace('1', "9")),
    ];
    restore(&lab, id, &changes).await;
    let row = lab.volume_row(id).await;
    let name = row.display_name.as_deref();
    assert_eq!(name, Some("'; DROP TABLE volumes; -- \\"));
    assert_eq!(row.display_description, None);
    assert_eq!(row.encryption_key_id, None);
    assert_eq!(row.volume_type_id, Some(TYPE.replace('1', "9")));
    assert_eq!(row.status.as_deref(), Some("restoring-backup"));
    let other = Change::EncryptionKey(Some("new".to_owned()));
    restore(&lab, id, &[other]).await;
    let row = lab.volume_row(id).await;
    assert_eq!(row.encryption_key_id.as_deref(), Some("new"));
}

#[tokio::test]
async fn nothing_to_restore_changes_nothing() {
    let lab = Lab::new().await;
    let user = pairs([("a", "1")]);
    let id = volume(&lab, &user, &user).await;
    let found = lab.volume_row(id).await;
    restore(&lab, id, &[]).await;
    assert_eq!(lab.volume_row(id).await, found);
    assert_eq!(user_rows(&lab, id).await, [row("a", "1", kept())]);
}

#[tokio::test]
async fn one_pair_is_set_and_the_others_are_left() {
    let lab = Lab::new().await;
    let user = pairs([("a", "1"), ("SRC_BACKUP_ID", "2")]);
    let id = volume(&lab, &user, &Pairs::new()).await;
    let set = async |value: &str| {
        let set = lab
            .db
            .set_volume_metadata(id, "src_backup_id", value, now());
        set.await.expect("set");
    };
    set("x").await;
    set("y").await;
    let expected = [
        row("a", "1", kept()),
        row("SRC_BACKUP_ID", "2", kept()),
        row("src_backup_id", "y", [Some(now()), Some(now()), None]),
    ];
    assert_eq!(user_rows(&lab, id).await, expected);
}

#[tokio::test]
async fn a_pair_that_is_set_many_times_at_once_is_one_row() {
    let lab = Lab::new().await;
    let id = lab.volume(VolumeStatus::Creating, |_| ()).await;
    let mut tasks = JoinSet::new();
    for value in ["1", "2", "3", "4"] {
        let db = lab.db.clone();
        tasks.spawn(async move { db.set_volume_metadata(id, "key", value, now()).await });
    }
    for outcome in tasks.join_all().await {
        outcome.expect("set");
    }
    assert_eq!(user_rows(&lab, id).await.len(), 1);
}

/// SQLite takes texts of any length.
mod server {
    use super::*;

    #[tokio::test]
    async fn a_change_that_is_refused_takes_the_others_back() {
        let lab = Lab::new().await;
        let user = pairs([("a", "1")]);
        let id = volume(&lab, &user, &Pairs::new()).await;
        let name = Change::Name {
            name: "new".to_owned(),
            description: None,
        };
        let long = pairs([("a", "2"), ("b", &"x".repeat(256))]);
        let changes = [name, Change::UserMetadata(long)];
        let outcome = lab.db.restore_metadata(id, &changes, now()).await;
        outcome.expect_err("the value is too long");
        assert_eq!(user_rows(&lab, id).await, [row("a", "1", kept())]);
        assert_eq!(lab.volume_row(id).await.display_name, None);
    }
}
