//! The options that the service knows, by topic.

pub mod attach;
pub mod backup;
pub mod cinderblock;
pub mod database;
pub mod ignored;
pub mod keys;
pub mod logging;
pub mod messaging;
pub mod quota;
pub mod service;
pub mod without_effect;

use super::registry::OptionSpec;

/// Every option that the service knows, in the order of the sample file.
pub fn all() -> impl Iterator<Item = &'static OptionSpec> {
    [
        service::Service::OPTIONS,
        backup::Backup::OPTIONS,
        backup::Ceph::OPTIONS,
        attach::Attach::OPTIONS,
        quota::Quota::OPTIONS,
        messaging::Messaging::OPTIONS,
        logging::Logging::OPTIONS,
        without_effect::DEFAULT,
        cinderblock::Cinderblock::OPTIONS,
        database::Database::OPTIONS,
        messaging::Notifications::OPTIONS,
        without_effect::NOTIFICATIONS,
        messaging::Rabbit::OPTIONS,
        without_effect::RABBIT,
        keys::KeyManager::OPTIONS,
        keys::Barbican::OPTIONS,
        keys::BarbicanServiceUser::OPTIONS,
        keys::ServiceUser::OPTIONS,
        keys::KeystoneAuthtoken::OPTIONS,
    ]
    .into_iter()
    .flatten()
}

/// The option of that section and name.
pub(super) fn find(group: &str, name: &str) -> Option<&'static OptionSpec> {
    all().find(|spec| spec.group == group && spec.name == name)
}
