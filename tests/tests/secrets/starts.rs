//! Starts that fail tell why, and no secret with it. Each worker has a host of its own and its log on
//! standard error.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result};
use cinderblock_tests::{Lab, eventually, run};
use futures_util::stream::{self, StreamExt};
use tokio::process::Command;
use uuid::Uuid;

use crate::forms::Secret;
use crate::places::Found;
use crate::planted::{in_url, password, port};

/// Options with a secret, as it is (RAW) or as it belongs into a URL (ENCODED), and a word of what a start says
/// about them.
const CASES: [(&str, &str); 12] = [
    (
        "[database]\nconnection = mysql+pymysql://cinder:ENCODED@DATABASE/cinder",
        "Access denied",
    ),
    (
        "[database]\nconnection = mysql+pymysql://cinder:ENCODED@DATABASE/cinder?ssl_no=1",
        "ssl_no",
    ),
    (
        "[database]\nconnection = mysql+pymysql://cinder:ENCODED@[::1:x/cinder",
        "connection",
    ),
    (
        "[database]\nconnection = mysql+pymysql://cinder:RAW@127.0.0.1:1/cinder",
        "Cannot connect to the database",
    ),
    (
        "[database]\nconnection = oracle://cinder:RAW@h/cinder",
        "dialect is not supported",
    ),
    (
        "transport_url = rabbit://u:ENCODED@127.0.0.1:1//",
        "refused",
    ),
    (
        "transport_url = rabbit://u:ENCODED@BROKER//",
        "ACCESS_REFUSED",
    ),
    (
        "transport_url = rabbit://u:RAW@h:port//",
        "must be percent-encoded",
    ),
    ("transport_url = kafka://u:ENCODED@h//", "transport_url"),
    // Misspelt, and without its sign.
    ("transport_ur = rabbit://u:RAW@h//", "transport_ur"),
    ("[keystone_authtoken]\npasword = RAW", "pasword"),
    ("[keystone_authtoken]\npassword RAW", "password …"),
];

/// How many workers are started at a time.
const AT_A_TIME: usize = 4;

/// One of these, filled in.
struct Case {
    secret: String,
    options: String,
    says: &'static str,
}

impl Case {
    fn new(lab: &Lab, options: &str, says: &'static str) -> Result<Self> {
        let secret = password("start");
        let address = |name| Ok::<_, anyhow::Error>(format!("127.0.0.1:{}", port(lab, name)?));
        let options = options
            .replace("DATABASE", &address("LAB_DATABASE_URL")?)
            .replace("BROKER", &address("LAB_AMQP_URL")?)
            .replace("ENCODED", &in_url(&secret))
            .replace("RAW", &secret);
        Ok(Self {
            secret,
            options,
            says,
        })
    }
}

/// A file that goes with this.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("cinderblock-{}", Uuid::new_v4()));
        fs::write(&path, text)?;
        Ok(Self(path))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // One that is left does no harm.
        let _ = fs::remove_file(&self.0);
    }
}

/// A worker with the lab's configuration and these options, under a command such as `timeout`.
fn worker(lab: &Lab, under: &[&str], options: &File) -> Result<Command> {
    let conf = lab.variable("LAB_CINDER_CONF")?;
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/lab/lab"));
    command.args(["run", "--name", &lab.variable("LAB_NAME")?, "--"]);
    command.args(under).arg(lab.variable("LAB_WORKER")?);
    command.args(["--config-file", &conf, "--config-file"]);
    command.arg(&options.0).kill_on_drop(true);
    Ok(command)
}

/// What a start has said when it has said what it was to say. The worker is ended then.
async fn told(lab: &Lab, case: &Case) -> Result<String> {
    let common = "[DEFAULT]\nhost = secrets\nenable_new_services = false\nretry_interval = 1\n";
    let options = File::new(&format!("{common}{}\n", case.options))?;
    let said = File::new("")?;
    let output = fs::OpenOptions::new().append(true).open(&said.0)?;
    let mut command = worker(lab, &["timeout", "170"], &options)?;
    command.stdout(output.try_clone()?).stderr(output);
    let mut child = command.spawn()?;
    let heard = async || Ok(String::from_utf8_lossy(&fs::read(&said.0)?).into_owned());
    let heard = eventually("the start", heard, |text| text.contains(case.says)).await;
    if let Some(pid) = child.id() {
        // One that has ended by itself needs none.
        let _ = run(Command::new("kill").arg(pid.to_string())).await;
    }
    child.wait().await?;
    heard?;
    Ok(String::from_utf8_lossy(&fs::read(&said.0)?).into_owned())
}

/// Configurations with a key that Ceph does not know, that is broken off, and that is none.
async fn keyrings(lab: &Lab) -> Result<(Vec<File>, Vec<Case>)> {
    let other = run(Command::new("ceph-authtool").arg("--gen-print-key")).await?;
    let key = other.trim();
    let (mut files, mut cases) = (Vec::new(), Vec::new());
    for (secret, says) in [
        (key.to_owned(), "The backup pool cannot be worked with"),
        // Broken off, and with what is no base64.
        (
            key[..key.len() - 5].to_owned(),
            "The backup pool cannot be worked with",
        ),
        (password("key"), "The backup pool cannot be worked with"),
    ] {
        let keyring = File::new(&format!("[client.cinder-backup]\n\tkey = {secret}\n"))?;
        let text = fs::read_to_string(lab.variable("LAB_BACKUPS_CEPH_CONF")?)?;
        let mon_host = text.lines().find(|line| line.starts_with("mon_host"));
        let mon_host = mon_host.context("no monitors")?;
        let conf = File::new(&format!(
            "[global]\n{mon_host}\nkeyring = {}\n",
            keyring.0.display()
        ))?;
        cases.push(Case {
            options: format!("backup_ceph_conf = {}", conf.0.display()),
            secret,
            says,
        });
        files.extend([keyring, conf]);
    }
    Ok((files, cases))
}

#[tokio::test]
async fn none_is_told_by_a_start_that_fails() -> Result<()> {
    let lab = Lab::from_env()?;
    let cases = CASES.iter();
    let cases = cases.map(|(options, says)| Case::new(&lab, options, says));
    let mut cases = cases.collect::<Result<Vec<Case>>>()?;
    let (_files, wrong_keys) = keyrings(&lab).await?;
    cases.extend(wrong_keys);
    let (mut found, mut secrets) = (Found::default(), Vec::new());
    let mut starts = stream::iter(&cases)
        .map(async |case| (case, told(&lab, case).await))
        .buffer_unordered(AT_A_TIME);
    while let Some((case, text)) = starts.next().await {
        let options = case.options.replace(&case.secret, "…");
        let options = options.replace(&in_url(&case.secret), "…");
        let text = text.with_context(|| options.clone())?;
        secrets.push(Secret::new(
            &format!("what is in {options:?}"),
            &case.secret,
        ));
        found.add("what it says", text);
    }
    found.holds_none(&secrets)
}

/// Whatever whoever starts the worker allows: a memory that is written to a disk holds all of them.
#[tokio::test]
async fn a_crash_leaves_no_memory_behind() -> Result<()> {
    let lab = Lab::from_env()?;
    let file = File::new("[DEFAULT]\nhost = secrets\nenable_new_services = false\n")?;
    let under = [
        "sh",
        "-c",
        r#"ulimit -c unlimited && exec timeout 5 "$@""#,
        "-",
    ];
    let mut command = worker(&lab, &under, &file)?;
    let mut child = command.stderr(Stdio::null()).spawn()?;
    let (path, binary) = (file.0.display().to_string(), lab.variable("LAB_WORKER")?);
    let limits = async || {
        let processes = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
        let found = processes.filter_map(|process| {
            let command = fs::read(process.join("cmdline")).ok()?;
            let command = String::from_utf8_lossy(&command).into_owned();
            let is_ours = command.starts_with(&binary) && command.contains(&path);
            let limits = fs::read_to_string(process.join("limits")).ok()?;
            let limit = limits
                .lines()
                .find(|line| line.starts_with("Max core file size"))?;
            let words: Vec<&str> = limit.split_whitespace().skip(4).take(2).collect();
            is_ours.then(|| words.join(" "))
        });
        Ok(found.last())
    };
    let lowered = |limits: &Option<String>| limits.as_deref() == Some("0 unlimited");
    let seen = eventually("core dumps are off", limits, lowered).await;
    child.wait().await?;
    seen.map(drop)
}
