//! Attaching with the os-brick of the lab's Cinder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use cinderblock::attach::{BrickError, OsBrick};
use serde_json::{Value, json};

/// A folder for one test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("cinderblock-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(folder)).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry").file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a storage that is nowhere would have cinder-volume answer.
fn connections() -> [(Value, &'static str); 3] {
    let iscsi = json!({
        "target_portal": "127.0.0.1:1", "target_iqn": "iqn.2026-11.example:none", "target_lun": 0,
        "volume_id": "none", "target_discovered": false,
    });
    let fibre_channel = json!({"target_wwn": ["50014380186af83c"], "target_lun": 0});
    let nvme = json!({
        "target_portal": "127.0.0.1", "target_port": 1, "nqn": "nqn.none",
        "transport_type": "tcp", "host_nqn": "nqn.host",
    });
    [
        (
            json!({"driver_volume_type": "iscsi", "data": iscsi}),
            "iscsiadm",
        ),
        (
            json!({"driver_volume_type": "fibre_channel", "data": fibre_channel}),
            "Fibre Channel",
        ),
        (
            json!({"driver_volume_type": "nvmeof", "data": nvme}),
            "nqn.none",
        ),
    ]
}

#[tokio::test]
async fn os_brick_is_asked_for_every_protocol_and_heeds_its_own_options() {
    let folder = Folder::new("os-brick");
    let at = folder.0.display();
    let venv = std::env::var("LAB_VENV").expect("LAB_VENV, of a lab");
    let helper = folder.0.join("helper");
    let script =
        format!("#!/bin/sh\necho \"$@\" >> {at}/called\nexec {venv}/bin/privsep-helper \"$@\"\n");
    fs::write(&helper, script).expect("a script");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("a program");
    let options = format!(
        "[oslo_concurrency]\nlock_path = $state_path/locks\n[privsep_osbrick]\nhelper_command = {at}/helper\n"
    );
    let conf = folder.0.join("cinder.conf");
    fs::write(&conf, options).expect("a configuration");
    let os_brick = OsBrick {
        python: format!("{venv}/bin/python"),
        config_files: vec![conf],
        state_path: folder.0.clone(),
        host: "node1".to_owned(),
        my_ip: "127.0.0.1".to_owned(),
        rootwrap_config: "/nonexistent/rootwrap.conf".into(),
        multipath: false,
        enforce_multipath: false,
        scan_tries: 1,
    };

    for (connection, reason) in connections() {
        let refused = os_brick.connect(&connection).await;
        match refused.expect_err("there is no such storage") {
            BrickError::Failed(why) => assert!(why.contains(reason), "{why}"),
            error => panic!("{error}"),
        }
    }
    let locks = folder.names("locks");
    assert!(
        locks.iter().any(|name| name == "os-brick-connect_volume"),
        "{locks:?}"
    );
    let called = fs::read_to_string(folder.0.join("called")).expect("it was called");
    assert!(called.contains("os_brick.privileged.default"), "{called}");
}
