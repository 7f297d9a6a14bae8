//! The program as an operator starts it: what it says when it cannot work, its exit code, and what
//! it tells while it runs.

#[path = "../ceph_lab/mod.rs"]
mod ceph_lab;
mod refused;
mod told;
mod worker;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use uuid::Uuid;

const DRIVER: &str = "backup_driver = cinder.backup.drivers.ceph.CephBackupDriver";

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("cinderblock-start-{}", Uuid::new_v4()));
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left lies in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts the program, which must end by itself.
fn run(arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_cinder-backup"))
        .args(arguments)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    for _ in 0..600 {
        if child.try_wait().expect("it can be waited for").is_some() {
            return child.wait_with_output().expect("its output");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().expect("it can be killed");
    panic!("it does not end: {:?}", child.wait_with_output());
}

/// What it says on standard error with this configuration, which is no secret.
fn complaint(text: &str) -> String {
    let folder = Folder::new();
    let file = folder.file("cinder.conf", text);
    let output = run(&["--config-file", file.to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stderr).expect("a text");
    assert!(!said.contains("S3cret"), "{said}");
    said
}

#[test]
fn a_wrong_command_line_is_told_from_a_wrong_configuration() {
    assert_eq!(run(&["--no-such-option"]).status.code(), Some(2));
    let version = run(&["--version"]);
    assert!(version.status.success());
    assert!(version.stdout.starts_with(b"cinder-backup "));
    let missing = run(&["--config-file", "/nonexistent/cinder.conf"]);
    assert_eq!(missing.status.code(), Some(1));
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(said.contains("/nonexistent/cinder.conf"), "{said}");
    let folder = run(&["--config-file", env!("CARGO_MANIFEST_DIR")]);
    let said = String::from_utf8_lossy(&folder.stderr).into_owned();
    assert_eq!(said.matches("Is a directory").count(), 1, "{said}");
}

#[test]
fn a_configuration_that_cannot_work_is_named() {
    let said = complaint(&format!(
        "[DEFAULT]\n{DRIVER}\nbackup_max_operations = many\n"
    ));
    assert!(said.contains("[DEFAULT] backup_max_operations"), "{said}");
    let two = format!("[DEFAULT]\n{DRIVER}\nbackup_max_operations = many\ndebug = perhaps\n");
    let said = complaint(&two);
    assert!(said.contains("2 options cannot be used:\n"), "{said}");
    assert!(said.contains("[DEFAULT] debug"), "{said}");
    let said = complaint("[DEFAULT]\nno assignment at all\n");
    assert!(said.contains("cinder.conf:2"), "{said}");
    let said = complaint("[DEFAULT]\nbackup_driver = cinder.backup.drivers.nfs.NFSBackupDriver\n");
    assert!(said.contains("nfs.NFSBackupDriver"), "{said}");
    // What nobody knows may be what is missing.
    let said = complaint("[DEFAULT]\nbackup_drivr = cinder.backup.drivers.ceph.CephBackupDriver\n");
    for expected in ["[DEFAULT] backup_driver: ", "backup_drivr"] {
        assert!(said.contains(expected), "{said}");
    }
    let said = complaint(&format!(
        "[DEFAULT]\n{DRIVER}\n[database]\nconnection = sqlite:////nonexistent/cinder.sqlite\n"
    ));
    let none = "No such file or directory (os error 2)";
    let file = format!("the SQLite database /nonexistent/cinder.sqlite: {none}");
    assert!(said.contains(&file), "{said}");
    let said = complaint(&format!(
        "[DEFAULT]\n{DRIVER}\n[database]\n\
         connection = postgresql://u:S3cret@h/c?sslrootcert=/nonexistent/db\n"
    ));
    let file = format!("[database] connection: sslrootcert: /nonexistent/db: {none}");
    assert!(said.contains(&file), "{said}");
    let said = complaint(&format!(
        "[DEFAULT]\n{DRIVER}\n[database]\nconnection = mysql://u:S3cret@h/c?ssl_ca=/nonexistent/db\n\
         [oslo_messaging_rabbit]\nssl = true\nssl_ca_file = /nonexistent/ca\n"
    ));
    for expected in [
        format!("\n  [oslo_messaging_rabbit] ssl_ca_file: /nonexistent/ca: {none}\n"),
        format!("\n  [database] connection: ssl_ca: /nonexistent/db: {none}\n"),
    ] {
        assert_eq!(said.matches(&expected).count(), 1, "{said}");
    }
    let said = complaint(&format!(
        "[DEFAULT]\n{DRIVER}\n[database]\nconnection = mysql://u:S3cret@h/c\n\
         [oslo_messaging_rabbit]\nssl = true\nssl_ca_file = /dev/null\n"
    ));
    let file = "[oslo_messaging_rabbit] ssl_ca_file: /dev/null: holds no certificate";
    assert!(said.contains(file), "{said}");
}

#[test]
fn a_password_that_the_database_refuses_ends_it_and_is_in_the_log_file() {
    let url = std::env::var("LAB_DATABASE_URL")
        .unwrap_or_else(|_| panic!("LAB_DATABASE_URL is not set: run `make test`"));
    let url = url.replacen(":cinder@", ":S3cret@", 1);
    let folder = Folder::new();
    let text = format!("[DEFAULT]\n{DRIVER}\n[database]\nconnection = {url}\n");
    let conf = folder.file("cinder.conf", &text);
    let log = folder.0.join("cinder-backup.log");
    let arguments = ["--config-file", conf.to_str().expect("a path")];
    let output = run(&[
        &arguments[..],
        &["--log-file", log.to_str().expect("a path")],
    ]
    .concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).expect("a text");
    let logged = std::fs::read_to_string(&log).expect("a log");
    for text in [&said, &logged] {
        let refusals = [
            "Access denied for user 'cinder'",
            "password authentication failed for user \"cinder\"",
        ];
        let refused = refusals.iter().any(|refusal| text.contains(refusal));
        assert!(refused, "{text}");
        assert!(!text.contains("S3cret"), "{text}");
    }
}
