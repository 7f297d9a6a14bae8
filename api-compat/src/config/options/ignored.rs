//! Names that Cinder's services know and this one has no use for: no typing errors.

/// Options of `[DEFAULT]` that belong to other backup drivers or other services.
const BACKUP: &[&str] = &[
    "backup_api_class",
    "backup_compression_algorithm",
    "backup_container",
    "backup_create_containers",
    "backup_enable_progress_timer",
    "backup_file_size",
    "backup_manager",
    "backup_mount_attempts",
    "backup_mount_options",
    "backup_mount_point_base",
    "backup_name_template",
    "backup_native_threads_pool_size",
    "backup_object_number_per_notification",
    "backup_posix_path",
    "backup_sha_block_size_bytes",
    "backup_share",
    "backup_timer_interval",
    "backup_use_same_host",
    "backup_use_temp_snapshot",
    "backup_workers",
];

/// Prefixes of whole families of such options.
const BACKUP_FAMILIES: &[&str] = &[
    "backup_gcs_",
    "backup_glusterfs_",
    "backup_s3_",
    "backup_swift_",
    "backup_tsm_",
];

/// Options of `[oslo_messaging_rabbit]`, including those of Zed (21).
const RABBIT: &[&str] = &[
    "conn_pool_min_size",
    "conn_pool_ttl",
    "direct_mandatory_flag",
    "heartbeat_in_pthread",
    "heartbeat_rate",
    "kombu_compression",
    "rpc_conn_pool_size",
];

/// Whether another part of Cinder reads this option of `[DEFAULT]`.
pub(in crate::config) fn is_other_backup_option(name: &str) -> bool {
    BACKUP.contains(&name) || BACKUP_FAMILIES.iter().any(|f| name.starts_with(f))
}

/// Whether oslo.messaging reads this option of `[oslo_messaging_rabbit]`.
pub(in crate::config) fn is_other_rabbit_option(name: &str) -> bool {
    RABBIT.contains(&name)
}
