//! A worker to which its own machine gives too little: it goes on, or one operation fails with the reason.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Invariants, Resource, Setup, eventually, run};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Each of these tests takes from the worker what the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Lets a process open so many files.
async fn limit_files(pid: u32, most: usize) -> Result<()> {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid.to_string()]);
    command.arg(format!("--nofile={most}:"));
    run(&mut command).await.map(drop)
}

fn open_files(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

#[tokio::test]
async fn a_worker_that_may_open_no_more_files_lives_and_works_again_when_it_may() -> Result<()> {
    const ENOUGH: usize = 1024;
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let invariants = Invariants::new(lab).await?;
    let volume = cloud.volume_with_data(8).await?;
    for room in [2, 9] {
        // It has no connection to the volumes' cluster yet.
        lab.command(&["restart", "worker", "--wait"]).await?;
        let pid = lab.pid("worker").await?;
        limit_files(pid, open_files(pid)? + room).await?;
        let backup = cloud.begin_backup(&volume, false).await?;
        sleep(Duration::from_secs(5)).await;
        limit_files(pid, ENOUGH).await?;
        cloud.settled(Resource::Backup, &backup).await?;
        ensure!(lab.pid("worker").await? == pid, "the worker ended");
        cloud.wait(Resource::Volume, &volume, "available").await?;
        cloud.delete(Resource::Backup, &backup).await?;
        let backup = cloud.back_up(&volume, false).await?;
        cloud.delete(Resource::Backup, &backup).await?;
    }
    invariants.hold().await?;
    cloud.delete(Resource::Volume, &volume).await
}

#[tokio::test]
async fn a_tool_that_may_open_few_files_says_so() -> Result<()> {
    let setup = Setup::new().await?;
    let volume = setup.cloud.create_volume(1).await?;
    let backup = setup.cloud.back_up(&volume, false).await?;
    for most in [10, 12, 16, 24] {
        let command = ["prlimit".to_owned(), format!("--nofile={most}:")];
        let output = setup.lab.tool_by(&command, &["verify", &backup]).await?;
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        ensure!(told.contains("Too many open files"), "{most}: {told}");
        let ended = output.status.code().is_some_and(|code| code != 0);
        ensure!(ended, "{most}: {}", output.status);
    }
    setup.cloud.delete(Resource::Backup, &backup).await?;
    setup.cloud.delete(Resource::Volume, &volume).await
}

#[tokio::test]
async fn a_log_that_cannot_be_written_costs_no_backup() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (lab, cloud) = (&setup.lab, &setup.cloud);
    let volume = cloud.volume_with_data(8).await?;
    let log = PathBuf::from(lab.variable("LAB_DIR")?).join("log/worker.log");
    let kept = log.with_extension("kept");
    fs::rename(&log, &kept)?;
    std::os::unix::fs::symlink("/dev/full", &log)?;
    let pid = lab.pid("worker").await?;
    let takes_it_up = async |path: &str| {
        lab.signal("worker", "HUP").await?;
        let files = async || {
            let files = fs::read_dir(format!("/proc/{pid}/fd")).context("no worker")?;
            let files = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
            Ok(files.map(|file| file.display().to_string()).collect())
        };
        let open = |files: &Vec<String>| files.iter().any(|file| file == path);
        eventually("the log is opened anew", files, open).await
    };
    takes_it_up("/dev/full").await?;
    let worked = async {
        let backup = cloud.back_up(&volume, false).await?;
        let restored = cloud.restore(&backup, None).await?;
        cloud.delete(Resource::Volume, &restored).await?;
        cloud.delete(Resource::Backup, &backup).await
    };
    let worked = worked.await;
    fs::rename(&kept, &log)?;
    takes_it_up(&log.canonicalize()?.display().to_string()).await?;
    worked?;
    ensure!(lab.pid("worker").await? == pid, "the worker ended");
    cloud.delete(Resource::Volume, &volume).await
}
