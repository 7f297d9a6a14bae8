//! Names of options: each that Python knows has its place here, and one that nobody knows is told.

use std::collections::BTreeSet;

use super::*;

/// What Python's libraries declare for other services than cinder-backup, or for other drivers
/// than Ceph's and RabbitMQ's.
const OF_OTHERS: &[&str] = &[
    "allow_availability_zone_fallback",
    "allow_compression_on_image_upload",
    "api_rate_limit",
    "auth_strategy",
    "backup_api_class",
    "backup_object_number_per_notification",
    "compression_format",
    "consistencygroup_api_class",
    "default_availability_zone",
    "default_group_type",
    "default_volume_type",
    "enabled_backends",
    "glance_api_insecure",
    "glance_api_servers",
    "glance_api_ssl_compression",
    "glance_ca_certificates_file",
    "glance_certfile",
    "glance_keyfile",
    "glance_num_retries",
    "glance_request_timeout",
    "group_api_class",
    "message_reap_interval",
    "no_snapshot_gb_quota",
    "osapi_volume_ext_list",
    "osapi_volume_extension",
    "osapi_volume_listen",
    "osapi_volume_listen_port",
    "osapi_volume_use_ssl",
    "osapi_volume_workers",
    "per_volume_size_limit",
    "quota_backup_gigabytes",
    "quota_backups",
    "quota_gigabytes",
    "quota_groups",
    "quota_snapshots",
    "quota_volumes",
    "reservation_clean_interval",
    "scheduler_manager",
    "split_loggers",
    "transfer_api_class",
    "use_default_quota_class",
    "volume_api_class",
    "volume_manager",
    "volume_usage_audit_period",
];

#[test]
fn every_option_of_pythons_worker_is_honoured_or_told_of() {
    let of_middleware = |group: &str, name: &str| {
        group == "keystone_authtoken" && options::ignored::is_anothers(group, name)
    };
    let mut others: BTreeSet<&str> = OF_OTHERS.iter().copied().collect();
    for declared in declared() {
        let (group, name) = (declared.group.as_str(), declared.name.as_str());
        let known = options::find(group, name).is_some();
        let of_others = match group {
            "DEFAULT" => others.remove(name),
            // transport_url takes no other scheme than rabbit.
            "oslo_messaging_kafka" => true,
            _ => of_middleware(group, name),
        };
        assert!(known != of_others, "[{group}] {name}");
    }
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn no_name_of_cinders_is_taken_for_a_typing_error() {
    let names = include_str!("../../../tests/fixtures/oslo_config/cinder_names.json");
    let names: Vec<String> = serde_json::from_str(names).unwrap();
    let of_libraries = declared().into_iter().filter(|d| d.group == "DEFAULT");
    let of_libraries = of_libraries.map(|declared| declared.name);
    let lines = names.into_iter().chain(of_libraries);
    let lines: BTreeSet<String> = lines.map(|name| format!("{name} =\n")).collect();
    let lines: String = lines.into_iter().collect();
    let file = ini::Ini::parse(std::path::Path::new("x"), &format!("[DEFAULT]\n{lines}")).unwrap();
    assert_eq!(warning::suspects(&file), []);
}

/// The warnings of a file, and what is only for information, without the file's name.
fn told(name: &str, text: &str) -> (Vec<String>, Vec<String>) {
    let config = load(name, text).unwrap();
    let (notes, warnings): (Vec<_>, Vec<_>) =
        config.warnings().iter().partition(|w| w.is_harmless());
    let texts = |warnings: Vec<&Warning>| {
        let texts = warnings.into_iter().map(|warning| {
            let text = warning.to_string();
            let (before, after) = text.split_once(" (in ").unwrap_or((&text, ")"));
            let (_, after) = after.split_once(')').unwrap();
            format!("{before}{after}")
        });
        texts.collect()
    };
    (texts(warnings), texts(notes))
}

const NO_LOCKS: &str = "[coordination] backend_url has no effect here. This worker needs no locks \
                        but those of the database and of Ceph.";

#[test]
fn what_kolla_writes_is_no_reason_for_a_warning() {
    for text in [
        include_str!("../../../tests/fixtures/oslo_config/kolla.conf"),
        include_str!("../../../tests/fixtures/oslo_config/kolla-tls.conf"),
    ] {
        let (warnings, notes) = told("names-kolla", text);
        assert_eq!(warnings, [""; 0]);
        assert_eq!(notes, [NO_LOCKS]);
    }
}

#[test]
fn openstack_helms_file_is_read() {
    let text = include_str!("../../../tests/fixtures/oslo_config/openstack-helm.conf");
    let config = load("helm", text).unwrap();
    assert_eq!(config.check(), []);
    assert_eq!(config.ceph.backup_ceph_pool, "cinder.backups");
    assert_eq!(config.messaging.transport_url.virtual_host, "cinder");
    let (warnings, notes) = told("names-helm", text);
    assert_eq!(
        warnings,
        ["[DEFAULT] log_config_append has no effect here. \
          The log is configured by the other options only."]
    );
    let template = "[DEFAULT] volume_name_template has no effect here. \
                    The connection that cinder-volume gives names the image or the device.";
    assert_eq!(notes, [template, NO_LOCKS]);
}

#[test]
fn a_name_that_nobody_knows_is_told_in_each_section() {
    let text = "[DEFAULT]\nstorage_avilability_zone = a\nlog_fil = x\nmy_option = 1\n\
                [database]\nmax_retry = 1\n[oslo_messaging_rabbit]\nrabit_quorum_queue = true\n\
                rabbit_host = h\n[oslo_messaging_notifications]\ndrivers = noop\n\
                [keystone_authtoken]\npasword = x\nmemcached_servers = m\n\
                [barbican]\nverify_ssl_pat = /x\n[key_manager]\nusername = castellan\n\
                [coordination]\nbackend = x\n[nova]\nanything = 1\n";
    let said = |name: &str, meant: Option<&str>| {
        let said = format!("{name} is no known option and has no effect");
        meant.map_or(said.clone(), |meant| format!("{said}: is {meant} meant?"))
    };
    let (warnings, notes) = told("names-unknown", text);
    let expected = [
        said("[DEFAULT] log_fil", Some("log_file")),
        said(
            "[DEFAULT] storage_avilability_zone",
            Some("storage_availability_zone"),
        ),
        said("[barbican] verify_ssl_pat", Some("verify_ssl_path")),
        said("[coordination] backend", None),
        said("[database] max_retry", Some("max_retries")),
        said("[keystone_authtoken] pasword", Some("password")),
        said("[oslo_messaging_notifications] drivers", Some("driver")),
        said("[oslo_messaging_rabbit] rabbit_host", None),
        said(
            "[oslo_messaging_rabbit] rabit_quorum_queue",
            Some("rabbit_quorum_queue"),
        ),
    ];
    assert_eq!(warnings, expected);
    assert_eq!(notes, [""; 0]);
}

#[test]
fn what_is_set_to_its_default_is_not_told() {
    let mut text = String::new();
    for spec in options::all().filter(|spec| !spec.has_effect()) {
        let Default::Text(default) = spec.default else {
            continue;
        };
        text += &format!("[{}]\n{} = {default}\n", spec.group, spec.name);
    }
    assert_eq!(told("names-defaults", &text), (Vec::new(), Vec::new()));
}
