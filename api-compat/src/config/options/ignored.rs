//! Names that other programs read and this one has no use for: no typing errors.

/// Options of `[DEFAULT]` that belong to other backup drivers or other services and have names like
/// those of this one.
const DEFAULT: &[&str] = &[
    "backend_native_threads_pool_size",
    "backup_api_class",
    "backup_compression_algorithm",
    "backup_container",
    "backup_create_containers",
    "backup_enable_progress_timer",
    "backup_file_size",
    "backup_mount_attempts",
    "backup_mount_options",
    "backup_mount_point_base",
    "backup_object_number_per_notification",
    "backup_posix_path",
    "backup_sha_block_size_bytes",
    "backup_share",
    "backup_use_same_host",
    "backup_use_temp_snapshot",
];

/// Prefixes of whole families of such options.
const FAMILIES: &[&str] = &[
    "backup_gcs_",
    "backup_glusterfs_",
    "backup_s3_",
    "backup_swift_",
    "backup_tsm_",
];

/// What the middleware of Cinder's API reads in the section of the service's own user
/// (keystonemiddleware's `auth_token/_opts.py`).
const MIDDLEWARE: &[&str] = &[
    "auth_uri",
    "auth_version",
    "cache",
    "delay_auth_decision",
    "enforce_token_bind",
    "http_connect_timeout",
    "http_request_max_retries",
    "include_service_catalog",
    "interface",
    "memcache_servers",
    "memcached_servers",
    "region_name",
    "service_token_roles",
    "service_token_roles_required",
    "service_type",
    "token_cache_time",
    "www_authenticate_uri",
];

/// What castellan declares for credentials that Cinder does not give it.
const CASTELLAN: &[&str] = &[
    "auth_type",
    "domain_id",
    "domain_name",
    "password",
    "project_domain_id",
    "project_domain_name",
    "project_id",
    "project_name",
    "reauthenticate",
    "token",
    "trust_id",
    "user_domain_id",
    "user_domain_name",
    "user_id",
    "username",
];

/// Whether another program reads this option.
pub(in crate::config) fn is_anothers(group: &str, name: &str) -> bool {
    match group {
        "DEFAULT" => DEFAULT.contains(&name) || FAMILIES.iter().any(|f| name.starts_with(f)),
        "keystone_authtoken" => MIDDLEWARE.contains(&name) || name.starts_with("memcache_"),
        // Written there by those who fill all sections of this kind alike.
        "service_user" | "barbican_service_user" => ["auth_version", "region_name"].contains(&name),
        "key_manager" => CASTELLAN.contains(&name),
        _ => false,
    }
}
