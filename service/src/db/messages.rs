//! What users are told about operations that failed.

use std::time::Duration;

use api_compat::user_message::UserMessage;
use chrono::{NaiveDateTime, TimeDelta};
use sea_orm::ActiveValue::Set;
use sea_orm::{DbErr, EntityTrait, SqlErr};
use uuid::Uuid;

use super::entity::messages;
use super::{Database, Result};

impl Database {
    /// Stores a message for the users of a project, for as long as `keep` says.
    pub async fn insert_message(
        &self,
        message: &UserMessage,
        project: &str,
        request: Option<&str>,
        keep: Duration,
        now: NaiveDateTime,
    ) -> Result<()> {
        let keep = TimeDelta::from_std(keep).unwrap_or(TimeDelta::MAX);
        let row = messages::ActiveModel {
            id: Set(Uuid::new_v4().to_string()),
            project_id: Set(project.to_owned()),
            request_id: Set(request.map(str::to_owned)),
            resource_type: Set(Some(message.resource_type.as_str().to_owned())),
            resource_uuid: Set(Some(message.resource_uuid.clone())),
            event_id: Set(message.event_id()),
            detail_id: Set(Some(message.detail.id().to_owned())),
            action_id: Set(Some(message.action.id().to_owned())),
            message_level: Set(message.detail.level().to_owned()),
            expires_at: Set(now.checked_add_signed(keep)),
            created_at: Set(Some(now)),
            updated_at: Set(None),
            deleted_at: Set(None),
            deleted: Set(Some(false)),
        };
        self.patience
            .run(|| async {
                let insert = messages::Entity::insert(row.clone());
                match insert.exec_without_returning(&self.pool).await.map(drop) {
                    // By an earlier try, whose answer was lost: nobody else has this id.
                    Err(error) if is_duplicate(&error) => Ok(()),
                    inserted => Ok(inserted?),
                }
            })
            .await
    }
}

fn is_duplicate(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}
