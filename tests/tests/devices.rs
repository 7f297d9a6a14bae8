//! Volumes that are not in Ceph: block devices, and files on a share, which os-brick attaches.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{
    Cloud, Cluster, Content, Files, Lab, Reconfigured, Resource, eventually, image, run,
};
use serde_json::json;
use tokio::process::Command;
use tokio::sync::Mutex;

/// Each of these tests looks whether anything is attached, and some restart the worker.
static ALONE: Mutex<()> = Mutex::const_new(());

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

struct Setup {
    lab: Lab,
    cloud: Cloud,
    files: Files,
    volumes: Cluster,
    backups: Cluster,
}

impl Setup {
    async fn new() -> Result<Self> {
        let lab = Lab::from_env()?;
        let cloud = Cloud::login(&lab, "demo").await?;
        Ok(Self {
            files: Files::new(&lab)?,
            volumes: cloud.volumes()?,
            backups: cloud.backups()?,
            lab,
            cloud,
        })
    }

    async fn create(&self, kind: &str, size: u64) -> Result<String> {
        let body = json!({"volume": {"size": size, "volume_type": kind}});
        self.cloud.create(Resource::Volume, body).await
    }

    /// A volume of 1 GiB with data here and there, zeros among it.
    async fn filled(&self, kind: &str) -> Result<String> {
        let volume = self.create(kind, 1).await?;
        self.files.write(&volume, 0, &vec![0x11; 3 << 20])?;
        self.files.write(&volume, 100 * MIB + 513, b"a few bytes")?;
        self.files.write(&volume, 500 * MIB, &vec![0; 9 << 20])?;
        self.files.write(&volume, GIB - 4096, &[0x77; 4096])?;
        Ok(volume)
    }

    /// A volume of that type, made from a backup.
    async fn create_from(&self, backup: &str, kind: &str) -> Result<String> {
        let body = json!({"volume": {"size": 1, "volume_type": kind, "backup_id": backup}});
        self.cloud.create(Resource::Volume, body).await
    }

    /// A volume in Ceph with what a backup holds.
    async fn restore_to_ceph(&self, backup: &str) -> Result<Content> {
        let volume = self.cloud.restore(backup, None).await?;
        let content = self.volumes.content(&image(&volume)).await?;
        self.cloud.delete(Resource::Volume, &volume).await?;
        Ok(content)
    }

    /// Nothing of any volume is attached, or waits to be deleted.
    async fn nothing_is_left(&self) -> Result<()> {
        let attached = self.files.attached().await?;
        ensure!(attached.is_empty(), "{attached:?} are attached");
        Ok(())
    }

    async fn delete(&self, what: Resource, ids: &[&str]) -> Result<()> {
        for id in ids {
            self.cloud.delete(what, id).await?;
        }
        Ok(())
    }

    async fn reset(&self, backup: &str) -> Result<()> {
        let admin = Cloud::login(&self.lab, "admin").await?;
        let reset = json!({"os-reset_status": {"status": "error"}});
        admin.action(Resource::Backup, backup, reset).await
    }
}

fn base(volume: &str, backup: &str) -> String {
    format!("backups/volume-{volume}.backup.{backup}")
}

#[tokio::test]
async fn a_device_goes_to_the_pool_and_anywhere_from_there() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (cloud, files) = (&setup.cloud, &setup.files);
    let volume = setup.filled("devices").await?;
    let content = files.content(&volume)?;
    let backup = cloud.back_up(&volume, false).await?;

    let base = base(&volume, &backup);
    let snapshots = setup.backups.snapshots(&base).await?;
    ensure!(snapshots.len() == 1, "{snapshots:?}");
    let stored = format!("{base}@{}", snapshots[0]);
    ensure!(setup.backups.content(&stored).await? == content);
    // 3 MiB, 8 MiB that the storage held before, and three objects with a little.
    let used = setup.backups.used(&base).await?;
    ensure!(used <= 32 * MIB, "{used} bytes are used");
    setup.nothing_is_left().await?;

    ensure!(setup.restore_to_ceph(&backup).await? == content);
    let new = setup.create_from(&backup, "devices").await?;
    ensure!(files.content(&new)? == content, "a new device");
    let share = setup.create_from(&backup, "shares").await?;
    ensure!(files.content(&share)? == content, "a new file");

    // Over other data, and into a larger volume.
    let larger = setup.create("devices", 2).await?;
    for (target, size) in [(&share, 1u64), (&larger, 2)] {
        for at in 0..size * 16 {
            files.write(target, at * 64 * MIB + 7, &vec![0xee; 5 << 20])?;
        }
        cloud.restore(&backup, Some(target)).await?;
        ensure!(files.content_of_first(target, GIB)? == content);
    }
    let tail = files.read(&larger, GIB, GIB as usize)?;
    ensure!(tail.iter().all(|byte| *byte == 0), "old data is left");
    ensure!(files.used(&larger)? <= 64 * MIB, "zeros take space");
    setup.nothing_is_left().await?;

    cloud.delete(Resource::Backup, &backup).await?;
    let left = setup.backups.images("backups").await?;
    ensure!(!left.iter().any(|name| name.contains(&volume)), "{left:?}");
    let volumes = [volume.as_str(), &new, &share, &larger];
    setup.delete(Resource::Volume, &volumes).await
}

#[tokio::test]
async fn an_incremental_holds_what_differs() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (cloud, files) = (&setup.cloud, &setup.files);
    let volume = setup.filled("devices").await?;
    let first = files.content(&volume)?;
    let full = cloud.back_up(&volume, false).await?;
    files.write(&volume, 3 * MIB, &vec![0x22; 1 << 20])?;
    let second = files.content(&volume)?;
    let incremental = cloud.back_up(&volume, true).await?;
    let shown = cloud.show(Resource::Backup, &incremental).await?;
    let shown = shown.context("it is there")?;
    ensure!(shown["is_incremental"] == true, "{shown}");
    ensure!(cloud.messages(&volume).await?.is_empty());
    let base = base(&volume, &full);
    let taken = setup.backups.used(&base).await?;
    ensure!(taken <= 48 * MIB, "{taken} bytes are used");
    ensure!(setup.restore_to_ceph(&full).await? == first);
    ensure!(setup.restore_to_ceph(&incremental).await? == second);
    cloud.delete(Resource::Backup, &incremental).await?;
    ensure!(setup.restore_to_ceph(&full).await? == first);
    cloud.delete(Resource::Backup, &full).await?;
    cloud.delete(Resource::Volume, &volume).await
}

/// While it is used: of a device a clone is backed up, of a file a snapshot, which is attached.
#[tokio::test]
async fn volumes_in_use() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (cloud, files) = (&setup.cloud, &setup.files);
    for kind in ["devices", "shares"] {
        let volume = setup.filled(kind).await?;
        let content = files.content(&volume)?;
        let before = files.names()?;
        setup.lab.command(&["volume-attach", &volume]).await?;
        let backup = cloud.back_up(&volume, false).await?;
        cloud.wait(Resource::Volume, &volume, "in-use").await?;
        setup.lab.command(&["volume-detach", &volume]).await?;
        ensure!(setup.restore_to_ceph(&backup).await? == content, "{kind}");
        let what = format!("nothing temporary of {kind} is left");
        let names = async || files.names();
        eventually(&what, names, |names| names.len() == before.len()).await?;
        setup.nothing_is_left().await?;
        cloud.delete(Resource::Backup, &backup).await?;
        cloud.delete(Resource::Volume, &volume).await?;
    }
    Ok(())
}

#[tokio::test]
async fn snapshots_of_volumes() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (cloud, files) = (&setup.cloud, &setup.files);
    for kind in ["devices", "shares"] {
        let volume = setup.filled(kind).await?;
        let content = files.content(&volume)?;
        let snapshot = cloud.create_snapshot(&volume).await?;
        files.write(&volume, 0, &vec![0x99; 5 << 20])?;
        let body = json!({"backup": {"volume_id": volume, "snapshot_id": snapshot}});
        let backup = cloud.create(Resource::Backup, body.clone()).await?;
        let second = cloud.create(Resource::Backup, body).await?;
        cloud
            .wait(Resource::Snapshot, &snapshot, "available")
            .await?;
        for backup in [&backup, &second] {
            ensure!(setup.restore_to_ceph(backup).await? == content, "{kind}");
        }
        setup.nothing_is_left().await?;
        setup.delete(Resource::Backup, &[&backup, &second]).await?;

        // It is as large as the volume was then.
        let extend = json!({"os-extend": {"new_size": 2}});
        cloud.action(Resource::Volume, &volume, extend).await?;
        cloud.wait(Resource::Volume, &volume, "available").await?;
        let body = json!({"backup": {"volume_id": volume, "snapshot_id": snapshot}});
        let backup = cloud.create(Resource::Backup, body).await?;
        let target = setup.create(kind, 2).await?;
        cloud.restore(&backup, Some(&target)).await?;
        ensure!(files.content_of_first(&target, GIB)? == content, "{kind}");
        cloud.delete(Resource::Backup, &backup).await?;
        cloud.delete(Resource::Snapshot, &snapshot).await?;
        setup.delete(Resource::Volume, &[&volume, &target]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_backup_from_ceph_goes_to_a_device() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (cloud, files) = (&setup.cloud, &setup.files);
    let volume = cloud.create_volume(1).await?;
    let (volumes, source) = (&setup.volumes, image(&volume));
    volumes
        .write(&source, 5 * MIB + 1, &vec![0x31; 9 << 20])
        .await?;
    let full = cloud.back_up(&volume, false).await?;
    volumes.write(&source, 0, &[0x32; 5000]).await?;
    volumes.discard(&source, 8 * MIB, 4 * MIB).await?;
    let content = volumes.content(&source).await?;
    let newer = cloud.back_up(&volume, true).await?;
    let target = setup.create("devices", 1).await?;
    cloud.restore(&full, Some(&target)).await?;
    cloud.restore(&newer, Some(&target)).await?;
    ensure!(files.content(&target)? == content);
    setup.nothing_is_left().await?;
    setup.delete(Resource::Backup, &[&newer, &full]).await?;
    setup.delete(Resource::Volume, &[&volume, &target]).await
}

#[tokio::test]
async fn what_is_behind_the_backups_end_is_left_alone_where_the_operator_wants_it() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (cloud, files) = (&setup.cloud, &setup.files);
    let volume = setup.filled("devices").await?;
    let content = files.content(&volume)?;
    let backup = cloud.back_up(&volume, false).await?;
    let target = setup.create("devices", 2).await?;
    files.write(&target, GIB, b"behind the end")?;
    let options = "[DEFAULT]\nrestore_discard_excess_bytes = false\n";
    let worker = Reconfigured::worker(&setup.lab, options).await?;
    let restored = cloud.restore(&backup, Some(&target)).await;
    worker.restore().await?;
    restored?;
    ensure!(files.content_of_first(&target, GIB)? == content);
    ensure!(files.read(&target, GIB, 14)? == b"behind the end");
    cloud.delete(Resource::Backup, &backup).await?;
    setup.delete(Resource::Volume, &[&volume, &target]).await
}

#[tokio::test]
async fn either_worker_restores_and_deletes_what_the_other_made() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let (cloud, files) = (&setup.cloud, &setup.files);
    let volume = setup.filled("devices").await?;
    let content = files.content(&volume)?;
    let workers = ["worker", "cinder-backup"];
    for (maker, other) in [(0, 1), (1, 0)] {
        let switch = async |from: usize, to: usize| {
            setup.lab.command(&["stop", workers[from]]).await?;
            let start = ["start", workers[to], "--wait"];
            setup.lab.command(&start).await
        };
        switch(other, maker).await?;
        let backup = cloud.back_up(&volume, false).await?;
        switch(maker, other).await?;
        ensure!(setup.restore_to_ceph(&backup).await? == content);
        let target = setup.create("shares", 1).await?;
        files.write(&target, 300 * MIB, &vec![0x44; 5 << 20])?;
        cloud.restore(&backup, Some(&target)).await?;
        ensure!(files.content(&target)? == content);
        cloud.delete(Resource::Backup, &backup).await?;
        let left = setup.backups.images("backups").await?;
        ensure!(!left.iter().any(|name| name.contains(&volume)), "{left:?}");
        cloud.delete(Resource::Volume, &target).await?;
    }
    setup.lab.command(&["start", "worker", "--wait"]).await?;
    setup.nothing_is_left().await?;
    cloud.delete(Resource::Volume, &volume).await
}

#[tokio::test]
async fn without_os_brick_only_volumes_in_ceph_are_backed_up() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let (device, share) = (
        setup.filled("devices").await?,
        setup.filled("shares").await?,
    );
    let in_ceph = cloud.create_volume(1).await?;
    let options = "[cinderblock]\nos_brick_python = /nonexistent/python\n";
    let worker = Reconfigured::worker(&setup.lab, options).await?;
    let tried = async {
        let backup = cloud.back_up(&in_ceph, false).await?;
        cloud.delete(Resource::Backup, &backup).await?;
        for volume in [&device, &share] {
            let backup = cloud.begin_backup(volume, false).await?;
            let reason = cloud.wait_failed(&backup).await?;
            ensure!(reason.contains("os-brick cannot be used"), "{reason}");
            cloud.wait(Resource::Volume, volume, "available").await?;
            cloud.delete(Resource::Backup, &backup).await?;
        }
        Ok(())
    };
    let tried = tried.await;
    worker.restore().await?;
    tried?;
    setup.nothing_is_left().await?;
    setup
        .delete(Resource::Volume, &[&device, &share, &in_ceph])
        .await
}

/// An interpreter that hangs when a volume is to be attached.
struct Hanging {
    script: PathBuf,
    noted: PathBuf,
    /// A line for each time that it was asked about this host.
    asked: PathBuf,
}

impl Hanging {
    fn new(lab: &Lab) -> Result<Self> {
        let folder = PathBuf::from(lab.variable("LAB_DIR")?).join("data");
        let (script, noted) = (folder.join("hanging"), folder.join("hanging.pid"));
        let asked = folder.join("hanging.asked");
        let _ = fs::remove_file(&noted);
        fs::write(&asked, "")?;
        let text = format!(
            "#!/bin/sh\nread -r line\ncase \"$line\" in *'\"command\":\"connect\"'*)\n\
             echo $$ > {0}.new; mv {0}.new {0}; sleep 900;;\n\
             *connector_properties*) echo asked >> {1};; esac\n\
             printf '%s\\n' \"$line\" | {2}/bin/python \"$@\"\n",
            noted.display(),
            asked.display(),
            lab.variable("LAB_VENV")?,
        );
        fs::write(&script, text)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            script,
            noted,
            asked,
        })
    }

    fn times_asked(&self) -> Result<usize> {
        Ok(fs::read_to_string(&self.asked)?.lines().count())
    }

    async fn worker(&self, lab: &Lab) -> Result<Reconfigured> {
        let script = self.script.display();
        let options = format!("[cinderblock]\nos_brick_python = {script}\n");
        Reconfigured::worker(lab, &options).await
    }

    /// Its process id, when it hangs.
    async fn caught(&self) -> Result<String> {
        let noted = async || Ok(fs::read_to_string(&self.noted).unwrap_or_default());
        let pid = eventually("a volume is to be attached", noted, |pid| !pid.is_empty()).await?;
        let _ = fs::remove_file(&self.noted);
        Ok(pid.trim().to_owned())
    }
}

#[tokio::test]
async fn os_brick_that_is_killed_fails_the_backup_and_nothing_else() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let cloud = &setup.cloud;
    let volume = setup.filled("devices").await?;
    let hanging = Hanging::new(&setup.lab)?;
    let worker = hanging.worker(&setup.lab).await?;
    let tried = async {
        let backup = cloud.begin_backup(&volume, false).await?;
        let pid = hanging.caught().await?;
        let attached = setup.files.attached().await?;
        ensure!(attached.len() == 1, "{attached:?}");
        run(Command::new("kill").args(["-KILL", &pid])).await?;
        let reason = cloud.wait_failed(&backup).await?;
        ensure!(reason.contains("ended without an answer"), "{reason}");
        cloud.wait(Resource::Volume, &volume, "available").await?;
        setup.nothing_is_left().await?;
        cloud.delete(Resource::Backup, &backup).await?;

        // One that hangs does not hold a backup that is called off. What it said of this host may not
        // be true any more, after what could not be attached.
        ensure!(hanging.times_asked()? == 1);
        let backup = cloud.begin_backup(&volume, false).await?;
        hanging.caught().await?;
        ensure!(hanging.times_asked()? == 2);
        setup.reset(&backup).await?;
        cloud.wait(Resource::Volume, &volume, "available").await?;
        setup.nothing_is_left().await?;
        cloud.delete(Resource::Backup, &backup).await
    };
    let tried = tried.await;
    worker.restore().await?;
    tried?;
    cloud.delete(Resource::Volume, &volume).await
}
