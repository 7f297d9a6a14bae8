//! When a deletion counts anew what a project uses.

use api_compat::state::BackupStatus;
use cinderblock::db::entity::backups;
use cinderblock::db::{Done, QuotaRules};
use sea_orm::ActiveValue::Set;

use crate::lab::{DELETED, Lab, change, now, rules, subject};

/// Deletes one of three backups of 2 GiB each of a project whose usages say `in_use`, and tells
/// what they say then: backups, GiB, and how many reservations until they are counted anew.
async fn after_a_deletion(
    in_use: i32,
    until_refresh: Option<i32>,
    rules: QuotaRules,
) -> (i32, i32, Option<i32>) {
    let lab = Lab::new().await;
    lab.usage("backups", in_use, until_refresh).await;
    lab.usage("backup_gigabytes", in_use, until_refresh).await;
    let two = |row: &mut backups::ActiveModel| row.size = Set(Some(2));
    lab.backup(BackupStatus::Available, two).await;
    lab.backup(BackupStatus::Error, two).await;
    let backup = lab.backup(BackupStatus::Deleting, two).await;
    let deleted = change(BackupStatus::Deleting, &DELETED);
    let done = Done::Deleted {
        parent: None,
        project: Some(&lab.project),
        size: 2,
        rules: &rules,
    };
    let subject = subject(backup, BackupStatus::Deleting);
    lab.db
        .change(subject, &deleted, done, now())
        .await
        .expect("change");
    let (backups, gigabytes) = lab.in_use().await;
    let left: Vec<_> = lab.usages().await.iter().map(|u| u.until_refresh).collect();
    assert_eq!(left[0], left[1]);
    (backups, gigabytes, left[0])
}

/// What is left of 50 and 50 if nothing is counted, and what if it is.
const TAKEN_OFF: (i32, i32) = (49, 48);
const COUNTED: (i32, i32) = (2, 4);

#[tokio::test]
async fn usage_below_nothing_is_counted_anew() {
    let after = after_a_deletion(-1, None, rules()).await;
    assert_eq!(after, (COUNTED.0, COUNTED.1, None));
}

#[tokio::test]
async fn usage_is_counted_anew_after_so_many_reservations() {
    for (found, configured, (backups, gigabytes), left) in [
        (Some(3), 5, TAKEN_OFF, Some(2)),
        (Some(1), 5, COUNTED, Some(5)),
        (Some(0), 5, COUNTED, Some(5)),
        // It is configured only now; it is configured to less; it is not configured any more.
        (None, 5, TAKEN_OFF, Some(5)),
        (Some(9), 5, TAKEN_OFF, Some(5)),
        (Some(9), 0, TAKEN_OFF, None),
        (Some(1), 0, COUNTED, None),
    ] {
        let rules = QuotaRules {
            until_refresh: configured,
            ..rules()
        };
        let after = after_a_deletion(50, found, rules).await;
        assert_eq!(after, (backups, gigabytes, left), "{found:?} {configured}");
    }
}

#[tokio::test]
async fn usage_is_counted_anew_when_it_is_old() {
    // The usages were changed an hour ago. One that counts reservations does not age.
    for (found, max_age, (backups, gigabytes)) in [
        (None, 3601, TAKEN_OFF),
        (None, 3600, COUNTED),
        (None, i64::MAX, TAKEN_OFF),
        (Some(9), 3600, TAKEN_OFF),
    ] {
        let rules = QuotaRules { max_age, ..rules() };
        let after = after_a_deletion(50, found, rules).await;
        assert_eq!(after, (backups, gigabytes, None), "{found:?} {max_age}");
    }
}

#[tokio::test]
async fn an_expiry_beyond_all_times_is_no_panic() {
    let rules = QuotaRules {
        reservation_expire: i64::MAX,
        ..rules()
    };
    let after = after_a_deletion(50, None, rules).await;
    assert_eq!(after, (TAKEN_OFF.0, TAKEN_OFF.1, None));
}
