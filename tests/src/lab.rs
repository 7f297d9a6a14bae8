//! The lab that a test runs in, as `tests/lab/lab env` describes it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::sleep;

use crate::patience::eventually;

/// The lab's addresses and commands.
#[derive(Clone)]
pub struct Lab {
    name: String,
}

impl Lab {
    /// The lab that the environment names. A missing variable is an error: these tests mean
    /// nothing without real parts.
    pub fn from_env() -> Result<Self> {
        Ok(Self {
            name: variable("LAB_NAME")?,
        })
    }

    /// One of the lab's variables, such as `LAB_CINDER_URL`.
    pub fn variable(&self, name: &str) -> Result<String> {
        variable(name)
    }

    /// The release of the lab's Cinder, such as 29.
    pub fn cinder_release(&self) -> Result<u32> {
        Ok(variable("LAB_CINDER_RELEASE")?.parse()?)
    }

    /// Runs a command of the lab, such as `["stop", "worker"]`, on this lab.
    pub async fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        self.command_with(arguments, &[]).await
    }

    /// The same with variables of the environment, which what it starts has, too.
    pub async fn command_with<S: AsRef<OsStr>>(
        &self,
        arguments: &[S],
        environment: &[(&str, &str)],
    ) -> Result<String> {
        let mut words = arguments.iter();
        let verb = words.next().context("no command given")?;
        let lab = repository().join("tests/lab/lab");
        let mut command = Command::new(lab);
        command.arg(verb).arg("--name").arg(&self.name).args(words);
        command.envs(environment.iter().copied());
        run(&mut command).await
    }

    /// What `cinderblock status` prints of backups, or of all that are under way.
    pub async fn status(&self, backups: &[&str]) -> Result<Vec<Value>> {
        let arguments = [&["status", "--output", "json"], backups].concat();
        let output = self.tool(&arguments).await?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{told}");
        serde_json::from_slice(&output.stdout).with_context(|| told.into_owned())
    }

    /// Waits until `cinderblock status` tells that a worker is at this with a backup.
    pub async fn wait_phase(&self, backup: &str, phase: &str) -> Result<Value> {
        let look = async || Ok(self.status(&[backup]).await?.remove(0));
        let what = format!("{backup} is {phase}");
        eventually(&what, look, |line| line["phase"] == phase).await
    }

    /// Runs the operator's tool with the worker's configuration, whatever comes of it.
    pub async fn tool(&self, arguments: &[&str]) -> Result<Output> {
        self.tool_by(&[], arguments).await
    }

    /// The same by means of a command that runs another one, such as `prlimit`.
    pub async fn tool_by(&self, runner: &[String], arguments: &[&str]) -> Result<Output> {
        let worker = PathBuf::from(self.variable("LAB_WORKER")?);
        let conf = PathBuf::from(self.variable("LAB_CINDER_CONF")?);
        let mut command = Command::new(repository().join("tests/lab/lab"));
        command.args(["run", "--name", &self.name, "--"]);
        command.args(runner);
        command.arg(worker.with_file_name("cinderblock"));
        for file in [conf.clone(), conf.with_file_name("backup.conf")] {
            command.arg("--config-file").arg(file);
        }
        let output = command.args(arguments).kill_on_drop(true).output().await;
        output.with_context(|| format!("cannot run {command:?}"))
    }

    /// What the worker has logged about something: the lines that name it.
    pub fn logged(&self, about: &str) -> Result<Vec<String>> {
        self.logged_by("worker", about)
    }

    /// What one of the lab's workers has logged about something.
    pub fn logged_by(&self, worker: &str, about: &str) -> Result<Vec<String>> {
        let folder = PathBuf::from(self.variable("LAB_DIR")?).join("log");
        let path = folder.join(format!("{worker}.log"));
        let log = fs::read_to_string(&path).with_context(|| format!("{path:?}"))?;
        let lines = log.lines().filter(|line| line.contains(about));
        Ok(lines.map(str::to_owned).collect())
    }

    /// Waits until the worker has logged a text about something.
    pub async fn wait_logged(&self, about: &str, text: &str) -> Result<()> {
        self.wait_logged_by("worker", about, text).await
    }

    /// The same of one of the lab's workers, whose log need not be there yet.
    pub async fn wait_logged_by(&self, worker: &str, about: &str, text: &str) -> Result<()> {
        let what = format!("{worker} says {text:?} about {about}");
        let lines = async || Ok(self.logged_by(worker, about).unwrap_or_default());
        let said = |lines: &Vec<String>| lines.iter().any(|line| line.contains(text));
        eventually(&what, lines, said).await?;
        Ok(())
    }

    /// The one error that the worker logs about something, once it is there: users may see the outcome
    /// before.
    pub async fn wait_error(&self, about: &str) -> Result<String> {
        let what = format!("the worker logs an error about {about}");
        let errors = async || {
            let mut lines = self.logged(about)?;
            lines.retain(|line| line.contains(" ERROR "));
            Ok(lines)
        };
        let mut errors = eventually(&what, errors, |errors| !errors.is_empty()).await?;
        ensure!(errors.len() == 1, "{errors:?}");
        Ok(errors.remove(0))
    }

    /// How often the worker has logged a text.
    pub fn times_logged(&self, text: &str) -> Result<usize> {
        Ok(self.logged(text)?.len())
    }

    /// Waits until the worker has logged a text once more than the `known` times.
    pub async fn wait_logged_again(&self, text: &str, known: usize) -> Result<()> {
        self.wait_logged_again_by("worker", text, known).await
    }

    /// How often one of the lab's workers has logged a text; its log need not be there yet.
    pub fn times_logged_by(&self, worker: &str, text: &str) -> usize {
        self.logged_by(worker, text).map_or(0, |lines| lines.len())
    }

    /// Waits until one of the lab's workers has logged a text once more than the `known` times.
    pub async fn wait_logged_again_by(&self, worker: &str, text: &str, known: usize) -> Result<()> {
        let what = format!("{worker} says {text:?} again");
        let times = async || Ok(self.times_logged_by(worker, text));
        eventually(&what, times, |times| *times > known).await?;
        Ok(())
    }

    /// How many volumes cinder-volume has given out connections to so far.
    pub fn connections(&self) -> Result<usize> {
        let given_out = "Initialize volume connection completed successfully";
        Ok(self.logged_by("cinder-volume", given_out)?.len())
    }

    /// Waits until cinder-volume has given out so many connections: the operations that asked for them
    /// are about to move data.
    pub async fn wait_connections(&self, count: usize) -> Result<()> {
        let what = format!("cinder-volume gives out {count} connections");
        let connections = async || self.connections();
        eventually(&what, connections, |given_out| *given_out >= count).await?;
        sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    /// The parts of the lab that run.
    pub async fn running(&self) -> Result<Vec<String>> {
        let status = self.command(&["status"]).await?;
        let words = status.lines().map(|line| line.split_whitespace());
        let running = words.filter_map(|mut words| Some((words.next()?, words.next()?)));
        let running = running.filter(|(_, state)| *state == "up");
        Ok(running.map(|(part, _)| part.to_owned()).collect())
    }

    /// The process of a part of the lab.
    pub async fn pid(&self, part: &str) -> Result<u32> {
        let status = self.command(&["status"]).await?;
        let mut lines = status.lines().map(|line| line.split_whitespace());
        let mut found = lines
            .find(|words| words.clone().next() == Some(part))
            .with_context(|| format!("there is no {part}"))?;
        let pid = found.nth(2).with_context(|| format!("{part} is down"))?;
        Ok(pid.parse()?)
    }

    /// Sends a signal, such as `STOP`, to a part of the lab.
    pub async fn signal(&self, part: &str, signal: &str) -> Result<()> {
        self.command(&["send", signal, part]).await?;
        Ok(())
    }

    /// Does something while a part of the lab hangs, which goes on whatever came of that.
    pub async fn while_stopped<T>(
        &self,
        part: &str,
        doing: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.signal(part, "STOP").await?;
        let done = doing.await;
        self.signal(part, "CONT").await?;
        done
    }
}

/// The worker with other options for a while.
pub struct Reconfigured {
    lab: Lab,
    worker: &'static str,
    file: PathBuf,
    original: String,
}

impl Reconfigured {
    /// Restarts the worker with these lines at the end of its configuration, and waits until it is
    /// given work.
    pub async fn worker(lab: &Lab, options: &str) -> Result<Self> {
        Self::start(lab, "worker", options, &["restart", "worker", "--wait"]).await
    }

    /// The same for options with which it cannot work.
    pub async fn broken_worker(lab: &Lab, options: &str) -> Result<Self> {
        Self::broken(lab, "worker", options).await
    }

    /// The same for one of the lab's workers, such as `cinder-backup`.
    pub async fn broken(lab: &Lab, worker: &'static str, options: &str) -> Result<Self> {
        Self::start(lab, worker, options, &["restart", worker]).await
    }

    async fn start(
        lab: &Lab,
        worker: &'static str,
        options: &str,
        command: &[&str],
    ) -> Result<Self> {
        let file = PathBuf::from(lab.variable("LAB_DIR")?).join("etc/cinder/backup.conf");
        let original = fs::read_to_string(&file)?;
        fs::write(&file, format!("{original}{options}"))?;
        let this = Self {
            lab: lab.clone(),
            worker,
            file,
            original,
        };
        this.lab.command(command).await?;
        Ok(this)
    }

    /// Has other lines at the end of its configuration, which it does not read by itself.
    pub fn rewrite(&self, options: &str) -> Result<()> {
        Ok(fs::write(
            &self.file,
            format!("{}{options}", self.original),
        )?)
    }

    /// Kills it; it is started as it was.
    pub async fn kill(self) -> Result<()> {
        fs::write(&self.file, &self.original)?;
        let kill = ["stop", "--signal", "KILL", self.worker];
        self.lab.command(&kill).await?;
        Ok(())
    }

    /// Restarts it as it was.
    pub async fn restore(self) -> Result<()> {
        fs::write(&self.file, &self.original)?;
        let restart = ["restart", self.worker, "--wait"];
        self.lab.command(&restart).await?;
        Ok(())
    }
}

/// The root of the checkout.
fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| {
        format!("{name} is not set: these tests need the lab, run `make test` (see tests/lab)")
    })
}

/// Runs a command to its end; its standard output, or an error with what it wrote to both.
pub async fn run(command: &mut Command) -> Result<String> {
    let output = command
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{command:?} failed with {}:\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    if text.contains('\0') {
        bail!("{command:?} printed binary data");
    }
    Ok(text)
}
