//! Notifications in the log (oslo.messaging's `notify/_impl_log.py`).

use api_compat::notification::{BackupEvent, Notification};
use tracing::info;

/// Loggers are known when the program is built: one for each event.
macro_rules! log_as {
    ($event:expr, $text:expr, $($known:ident $(($any:tt))? = $name:literal,)+) => {
        match $event {
            $(BackupEvent::$known $(($any))? => {
                info!(target: concat!("oslo.messaging.notification.", $name), "{}", $text);
            })+
        }
    };
}

/// Writes a notification to the log.
pub(super) fn log(notification: &Notification) {
    let text = notification.to_json();
    log_as!(
        notification.event(),
        text,
        CreateStart = "backup.create.start",
        CreateProgress(_) = "backup.createprogress",
        CreateEnd = "backup.create.end",
        RestoreStart = "backup.restore.start",
        RestoreEnd = "backup.restore.end",
        DeleteStart = "backup.delete.start",
        DeleteEnd = "backup.delete.end",
        ResetStatusEnd = "backup.reset_status.end",
    );
}
