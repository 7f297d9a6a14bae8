//! What users are told about operations that failed.

use std::time::Duration;

use api_compat::user_message::UserMessage;
use chrono::{NaiveDateTime, TimeDelta};
use sea_orm::ActiveValue::Set;
use sea_orm::EntityTrait;
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
                Ok(insert.exec(&self.pool).await?)
            })
            .await?;
        Ok(())
    }
}
