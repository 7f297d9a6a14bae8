//! os-brick, which attaches whatever is not in Ceph: a Python process for each request.
//!
//! The program is part of this one and is never written to a disk. Whatever os-brick, the drivers
//! of the kernel or a storage do to it, this process goes on.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tracing::debug;

const PROGRAM: &str = include_str!("os_brick.py");

/// The longest answer that is read.
const LONGEST_ANSWER: u64 = 1 << 20;

/// The most of a line in its log that is told as one.
const LONGEST_LINE: u64 = 4096;

/// How long the process has for its end, after its answer.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long finding out about this host may take.
const LOOK: Duration = Duration::from_secs(60);

/// How long attaching or detaching may take: os-brick itself scans and waits for minutes.
const WORK: Duration = Duration::from_secs(600);

/// Why os-brick did not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrickError {
    /// There is no os-brick.
    #[error("os-brick cannot be used: {0}")]
    Unavailable(String),
    /// It refused, or failed.
    #[error("os-brick failed: {0}")]
    Failed(String),
    /// Its process ended.
    #[error("os-brick's process ended without an answer: {0}")]
    Died(String),
    /// Its process was killed after that time.
    #[error("os-brick did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// How os-brick is run, and what it is told about this host.
#[derive(Debug, Clone)]
pub struct OsBrick {
    /// Interpreter (`[cinderblock] os_brick_python`); empty for none.
    pub python: String,
    /// Configuration files, of which privsep and os-brick read their own options.
    pub config_files: Vec<PathBuf>,
    /// `state_path`, to which options in those files may refer.
    pub state_path: PathBuf,
    /// `host`, likewise.
    pub host: String,
    /// `my_ip`.
    pub my_ip: String,
    /// `rootwrap_config`.
    pub rootwrap_config: PathBuf,
    /// `use_multipath_for_image_xfer`.
    pub multipath: bool,
    /// `enforce_multipath_for_image_xfer`.
    pub enforce_multipath: bool,
    /// `num_volume_device_scan_tries`.
    pub scan_tries: u32,
}

/// The line that answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Value,
    error: Option<String>,
    unavailable: Option<String>,
}

impl OsBrick {
    /// What this host tells cinder-volume about itself.
    pub async fn connector_properties(&self) -> Result<Value, BrickError> {
        let request = json!({"command": "connector_properties"});
        self.ask(request, LOOK).await
    }

    /// Attaches what cinder-volume has made ready; the answer has a `path`, and is needed to detach
    /// it again.
    pub async fn connect(&self, connection: &Value) -> Result<Value, BrickError> {
        let request = json!({"command": "connect", "connection": connection});
        self.ask(request, WORK).await
    }

    /// Detaches it, whatever state it is in. `device` is null if attaching was broken off.
    pub async fn disconnect(
        &self,
        connection: &Value,
        device: &Value,
        ignore_errors: bool,
    ) -> Result<(), BrickError> {
        let request = json!({
            "command": "disconnect", "connection": connection, "device": device,
            "ignore_errors": ignore_errors,
        });
        self.ask(request, WORK).await?;
        Ok(())
    }

    /// The words before a command that is to be run as root.
    pub fn root_helper(&self) -> [String; 3] {
        let config = self.rootwrap_config.to_string_lossy();
        ["sudo", "cinder-rootwrap", &config].map(str::to_owned)
    }

    /// Sends a request to a new process. That is killed when the time is over, and when the future
    /// is dropped.
    async fn ask(&self, mut request: Value, limit: Duration) -> Result<Value, BrickError> {
        if self.python.is_empty() {
            let reason = "[cinderblock] os_brick_python is empty".to_owned();
            return Err(BrickError::Unavailable(reason));
        }
        let settings = json!({
            "config_files": self.config_files, "state_path": self.state_path, "host": self.host,
            "my_ip": self.my_ip, "root_helper": self.root_helper(),
            "multipath": self.multipath, "enforce_multipath": self.enforce_multipath,
            "scan_tries": self.scan_tries.max(1),
        });
        if let (Value::Object(request), Value::Object(settings)) = (&mut request, settings) {
            request.extend(settings);
        }
        let mut child = Command::new(&self.python)
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A signal from the terminal is for the worker, which lets its operations end.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| BrickError::Unavailable(format!("{}: {error}", self.python)))?;
        let answered = tokio::time::timeout(limit, exchange(&mut child, &request)).await;
        let answer = answered.map_err(|_| BrickError::TimedOut(limit))??;
        let answer: Answer = serde_json::from_str(&answer)
            .map_err(|_| BrickError::Died("its answer cannot be read".to_owned()))?;
        match (answer.unavailable, answer.error) {
            (Some(reason), _) => Err(BrickError::Unavailable(format!(
                "{}: {reason}",
                self.python
            ))),
            (None, Some(reason)) => Err(BrickError::Failed(reason)),
            (None, None) => Ok(answer.result),
        }
    }
}

/// Writes the request, reads the answer, and waits for the process.
async fn exchange(child: &mut Child, request: &Value) -> Result<String, BrickError> {
    let died = |error: std::io::Error| BrickError::Died(error.to_string());
    let log = child
        .stderr
        .take()
        .map(|stderr| tokio::spawn(follow(stderr)));
    if let Some(mut input) = child.stdin.take() {
        // A process that did not want to hear it has said why, or ends.
        let _ = input.write_all(format!("{request}\n").as_bytes()).await;
    }
    let mut answer = String::new();
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output.take(LONGEST_ANSWER));
        let mut reading = std::pin::pin!(output.read_line(&mut answer));
        let read = tokio::select! {
            biased;
            read = &mut reading => read,
            // What it has left running may hold its output.
            _ = child.wait() => tokio::time::timeout(FAREWELL, reading).await.unwrap_or(Ok(0)),
        };
        read.map_err(died)?;
    }
    if answer.ends_with('\n') {
        // It has nothing more to do; what is left of it goes with `child`.
        let _ = tokio::time::timeout(FAREWELL, child.wait()).await;
        return Ok(answer);
    }
    let status = child.wait().await.map_err(died)?;
    let last_words = match log {
        // Its children may hold its standard error.
        Some(log) => tokio::time::timeout(FAREWELL, log).await,
        None => Ok(Ok(String::new())),
    };
    let last_words = last_words.ok().and_then(Result::ok).unwrap_or_default();
    Err(BrickError::Died(format!("{status} {last_words}")))
}

/// Passes on what the process logs, whatever bytes that are; its last line. A process whose log
/// nobody reads would stop.
async fn follow(stderr: ChildStderr) -> String {
    let mut log = BufReader::new(stderr);
    let (mut line, mut last) = (Vec::new(), String::new());
    loop {
        line.clear();
        let mut rest = (&mut log).take(LONGEST_LINE);
        let read = rest.read_until(b'\n', &mut line).await;
        if !read.is_ok_and(|read| read > 0) {
            return last;
        }
        let text = String::from_utf8_lossy(&line);
        if !text.trim().is_empty() {
            debug!("os-brick: {}", text.trim_end());
            last = text.trim_end().to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn os_brick(python: &Path) -> OsBrick {
        OsBrick {
            python: python.to_string_lossy().into_owned(),
            config_files: Vec::new(),
            state_path: "/nonexistent".into(),
            host: "host".to_owned(),
            my_ip: "192.0.2.1".to_owned(),
            rootwrap_config: "/etc/cinder rootwrap.conf".into(),
            multipath: false,
            enforce_multipath: false,
            scan_tries: 3,
        }
    }

    /// Asks an interpreter that is a shell script.
    async fn ask(script: &str) -> Result<Value, BrickError> {
        let path = std::env::temp_dir().join(format!("cinderblock-{}", uuid::Uuid::new_v4()));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("it is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it may run");
        let request = json!({"command": "connect", "connection": {"data": {"secret": "hunter2"}}});
        let answer = os_brick(&path).ask(request, Duration::from_secs(3)).await;
        let _ = fs::remove_file(&path);
        answer
    }

    #[tokio::test]
    async fn a_request_is_a_line_and_so_is_the_answer() {
        // What it was asked, as its answer; the program is in the arguments, the request is not.
        let answer = ask(
            r#"case "$*" in *hunter2*) exit 1;; -c*os_brick*) ;; *) exit 2;; esac
               read -r line; echo "{\"result\": $line}""#,
        );
        let answer = answer.await.expect("answered");
        assert_eq!(answer["connection"]["data"]["secret"], "hunter2");
        assert_eq!(
            answer["root_helper"],
            json!(["sudo", "cinder-rootwrap", "/etc/cinder rootwrap.conf"])
        );
        let failed = ask(r#"echo '{"error": "no such target"}'"#).await;
        let failed = failed.expect_err("failed").to_string();
        assert_eq!(failed, "os-brick failed: no such target");
        let missing = ask(r#"echo '{"unavailable": "No module"}'"#).await;
        assert!(matches!(missing, Err(BrickError::Unavailable(_))));
    }

    #[tokio::test]
    async fn whatever_becomes_of_the_process_is_told() {
        for (script, told) in [
            ("exit 3", "exit status: 3"),
            ("echo 'out of memory' >&2; kill -KILL $$", "out of memory"),
            (
                "printf 'odd: \\377\\n' >&2; head -c 9999999 /dev/zero >&2; echo >&2; echo last >&2",
                "last",
            ),
            ("sleep 60 & exit 0", "exit status: 0"),
            ("echo nonsense", "its answer cannot be read"),
            ("yes | tr -d '\\n'", "ended without an answer"),
        ] {
            let error = ask(script).await.expect_err(script).to_string();
            assert!(error.contains(told), "{script}: {error}");
        }
        let hangs = ask("exec sleep 600").await;
        assert!(matches!(hangs, Err(BrickError::TimedOut(_))), "{hangs:?}");
    }

    #[tokio::test]
    async fn without_an_interpreter_there_is_no_os_brick() {
        for python in ["", "/nonexistent/python"] {
            let asked = os_brick(python.as_ref()).connector_properties().await;
            assert!(
                matches!(asked, Err(BrickError::Unavailable(_))),
                "{asked:?}"
            );
        }
    }
}
