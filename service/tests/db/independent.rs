//! Increments that count as whole backups.

use api_compat::ids::BackupId;
use api_compat::state::BackupStatus;
use cinderblock::db::entity::backups;
use sea_orm::ActiveValue::Set;

use crate::lab::{Lab, now};

/// A backup that three build on, as its row says.
async fn parent(lab: &Lab) -> BackupId {
    let fill = |row: &mut backups::ActiveModel| row.num_dependent_backups = Set(Some(3));
    lab.backup(BackupStatus::Available, fill).await
}

async fn increment(lab: &Lab, parent: BackupId, status: BackupStatus) -> BackupId {
    let fill = |row: &mut backups::ActiveModel| row.parent_id = Set(Some(parent.to_string()));
    lab.backup(status, fill).await
}

#[tokio::test]
async fn a_parent_counts_those_that_still_name_it() {
    let lab = Lab::new().await;
    let (parent, other) = (parent(&lab).await, parent(&lab).await);
    let ours = increment(&lab, parent, BackupStatus::Available).await;
    let theirs = increment(&lab, parent, BackupStatus::Available).await;
    let making = increment(&lab, parent, BackupStatus::Creating).await;
    let deleting = increment(&lab, parent, BackupStatus::Deleting).await;
    let last = increment(&lab, other, BackupStatus::Error).await;
    let dependents = async |id| lab.backup_row(id).await.num_dependent_backups;

    let ids = [ours, making, deleting, last];
    lab.db.make_independent(&ids, now()).await.expect("update");
    for id in [ours, last] {
        assert_eq!(lab.backup_row(id).await.parent_id, None);
    }
    // What is being made is counted at its end, what is being deleted until its end.
    for id in [theirs, making, deleting] {
        assert_eq!(lab.backup_row(id).await.parent_id, Some(parent.to_string()));
    }
    assert_eq!(dependents(parent).await, Some(2));
    assert_eq!(dependents(other).await, Some(0));

    lab.db
        .make_independent(&[theirs], now())
        .await
        .expect("update");
    assert_eq!(dependents(parent).await, Some(1));
}

mod server {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cinderblock::db::{Database, Options};

    use super::*;
    use crate::lab::options;
    use crate::server::meddler::{Command, Fate, Meddler};

    #[tokio::test]
    async fn an_end_in_the_middle_leaves_both_as_they_were() {
        let updates = AtomicUsize::new(0);
        let meddler = Meddler::new(move |_, command| match command {
            Command::Update if updates.fetch_add(1, Ordering::SeqCst) == 1 => Fate::HangUp,
            _ => Fate::Pass,
        });
        let meddler = meddler.await;
        let lab = Lab::new().await;
        let parent = parent(&lab).await;
        let ours = increment(&lab, parent, BackupStatus::Available).await;
        let options = Options {
            transaction_tries: 0,
            ..options(&meddler.url)
        };
        let db = Database::connect(&options).await.expect("connect");
        let ended = db.make_independent(&[ours], now()).await;
        ended.expect_err("the connection is lost");
        let row = lab.backup_row(ours).await;
        assert_eq!(row.parent_id, Some(parent.to_string()));
        let row = lab.backup_row(parent).await;
        assert_eq!(row.num_dependent_backups, Some(3));

        // As the next start does.
        db.make_independent(&[ours], now()).await.expect("update");
        assert_eq!(lab.backup_row(ours).await.parent_id, None);
        let row = lab.backup_row(parent).await;
        assert_eq!(row.num_dependent_backups, Some(0));
    }
}
