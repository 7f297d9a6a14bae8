//! What users are told, as the rows that Cinder was seen to write.

use std::time::Duration;

use api_compat::ids::{BackupId, VolumeId};
use api_compat::user_message::{Action, Detail, UserMessage};
use chrono::TimeDelta;
use cinderblock::db::entity::messages;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use crate::lab::{Lab, now};

const MONTH: Duration = Duration::from_secs(2_592_000);

async fn only_message(lab: &Lab) -> messages::Model {
    let mut rows = messages::Entity::find()
        .filter(messages::Column::ProjectId.eq(&lab.project))
        .all(&lab.raw)
        .await
        .expect("query");
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

#[tokio::test]
async fn a_failed_backup_is_told_of() {
    let lab = Lab::new().await;
    let backup = BackupId::from(Uuid::new_v4());
    let message = UserMessage::about_backup(Action::Create, Detail::AttachError, backup);
    lab.db
        .insert_message(&message, &lab.project, Some("req-1"), MONTH, now())
        .await
        .expect("insert");
    let row = only_message(&lab).await;
    let expected = messages::Model {
        id: row.id.parse::<Uuid>().expect("a UUID").to_string(),
        project_id: lab.project.clone(),
        request_id: Some("req-1".to_owned()),
        resource_type: Some("VOLUME_BACKUP".to_owned()),
        resource_uuid: Some(backup.to_string()),
        event_id: "VOLUME_VOLUME_BACKUP_013_021".to_owned(),
        message_level: "ERROR".to_owned(),
        detail_id: Some("021".to_owned()),
        action_id: Some("013".to_owned()),
        expires_at: Some(now() + TimeDelta::days(30)),
        created_at: Some(now()),
        updated_at: None,
        deleted_at: None,
        deleted: Some(false),
    };
    assert_eq!(row, expected);
}

#[tokio::test]
async fn a_warning_about_a_volume_without_a_request_is_told_of() {
    let lab = Lab::new().await;
    let volume = VolumeId::from(Uuid::new_v4());
    let forced = Detail::IncrementalForcesFull;
    let message = UserMessage::about_volume(Action::Create, forced, volume);
    // Kept longer than there are years: for ever.
    lab.db
        .insert_message(&message, &lab.project, None, Duration::MAX, now())
        .await
        .expect("insert");
    let row = only_message(&lab).await;
    assert_eq!(row.event_id, "VOLUME_VOLUME_013_030");
    assert_eq!(row.message_level, "WARNING");
    assert_eq!((row.request_id, row.expires_at), (None, None));
}

mod server {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::server::meddler::{Command, Fate, Meddler};

    #[tokio::test]
    async fn a_message_that_was_stored_is_no_failure_when_the_answer_is_lost() {
        let (begun, lost) = (AtomicBool::new(false), AtomicBool::new(false));
        let meddler = Meddler::new(move |_, command| match command {
            Command::Insert => {
                begun.store(true, Ordering::SeqCst);
                Fate::Pass
            }
            Command::Execute
                if begun.load(Ordering::SeqCst) && !lost.swap(true, Ordering::SeqCst) =>
            {
                Fate::LoseAnswer
            }
            _ => Fate::Pass,
        });
        let meddler = meddler.await;
        let lab = Lab::through(&meddler.url).await;
        let backup = BackupId::from(Uuid::new_v4());
        let message = UserMessage::about_backup(Action::Create, Detail::AttachError, backup);
        lab.db
            .insert_message(&message, &lab.project, None, MONTH, now())
            .await
            .expect("told");
        only_message(&lab).await;
    }
}
