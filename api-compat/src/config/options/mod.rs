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
        without_effect::DATABASE,
        messaging::Notifications::OPTIONS,
        without_effect::NOTIFICATIONS,
        messaging::Rabbit::OPTIONS,
        without_effect::RABBIT,
        keys::KeyManager::OPTIONS,
        keys::Barbican::OPTIONS,
        without_effect::BARBICAN,
        keys::BarbicanServiceUser::OPTIONS,
        without_effect::BARBICAN_SERVICE_USER,
        keys::ServiceUser::OPTIONS,
        without_effect::SERVICE_USER,
        keys::KeystoneAuthtoken::OPTIONS,
        without_effect::KEYSTONE_AUTHTOKEN,
        without_effect::COORDINATION,
        without_effect::PROFILER,
        without_effect::REPORTS,
    ]
    .into_iter()
    .flatten()
}

/// The option of that section and name.
pub(super) fn find(group: &str, name: &str) -> Option<&'static OptionSpec> {
    all().find(|spec| spec.group == group && spec.name == name)
}
