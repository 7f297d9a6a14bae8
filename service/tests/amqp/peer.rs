//! oslo.messaging in a process of its own.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use api_compat::messaging::Request;
use cinderblock::amqp::Server;
use futures_util::future::{Either, select};
use serde_json::Value;

use crate::lab::{Lab, variable};

fn command(lab: &Lab, action: &str) -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/amqp/python/peer.py");
    let python = PathBuf::from(variable("LAB_VENV")).join("bin/python");
    let mut command = Command::new(python);
    command.args(["-W", "ignore", script, &lab.url, action]);
    // oslo.messaging's queue manager looks at the leader of its process group, which may be gone
    // where tests are run in the background.
    command.process_group(0);
    command
}

/// Calls our server. `allowed` is a module whose exceptions the caller builds anew.
pub async fn call(lab: &Lab, method: &str, allowed: Option<&str>, options: &[String]) -> Value {
    let mut command = command(lab, "call");
    command.args(["--method", method]);
    command.args(allowed.iter().flat_map(|module| ["--allow", module]));
    command.args(options);
    let running = tokio::task::spawn_blocking(move || command.output());
    let output = running.await.expect("joined").expect("Python runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("the outcome is JSON")
}

/// Calls our server, which answers. A caller that gives up tells why, and where its request is.
pub async fn call_answered(
    lab: &Lab,
    server: &mut Server,
    answer: Value,
    options: &[String],
) -> (Value, Request) {
    let call = pin!(call(lab, "anything", None, options));
    let answered = pin!(crate::lab::answer(server, answer));
    let limit = tokio::time::sleep(Duration::from_secs(120));
    let outcome = tokio::select! {
        first = select(call, answered) => match first {
            Either::Right((request, call)) => return (call.await, request),
            Either::Left((outcome, answered)) if !outcome["result"].is_null() => {
                return (outcome, answered.await);
            }
            Either::Left((outcome, _)) => outcome.to_string(),
        },
        () = limit => "it still waits".to_owned(),
    };
    let queues = lab.list("queues").await;
    panic!("what became of the caller: {outcome}\n{queues:#?}");
}

/// A server of oslo.messaging's.
pub struct PythonServer(Child);

impl PythonServer {
    /// Starts it; returns when it consumes.
    pub async fn start(lab: &Lab, host: &str, options: &[String]) -> Self {
        let mut command = command(lab, "serve");
        command
            .args(["--host", host])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let starting = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().expect("Python runs");
            let mut line = String::new();
            let output = child.stdout.as_mut().expect("it is piped");
            BufReader::new(output)
                .read_line(&mut line)
                .expect("Python writes");
            assert_eq!(line, "serving\n");
            Self(child)
        });
        starting.await.expect("the server started")
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        // The end of its input is what it waits for.
        drop(self.0.stdin.take());
        let ended = self.0.wait();
        if !std::thread::panicking() {
            assert!(ended.expect("it can be waited for").success());
        }
    }
}
