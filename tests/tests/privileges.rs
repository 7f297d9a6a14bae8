//! What the worker does without each of the capabilities that the README gives its two users in Ceph: what
//! needs it fails, the reason names the pool and the user, nothing is left behind, and it works again with no
//! more than the README says. `docs/security.md` has the table.

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Cluster, Lab, Resource, Setup, eventually, image};
use serde_json::Value;
use tokio::sync::Mutex;

/// Each of these tests takes away what the others need.
static ALONE: Mutex<()> = Mutex::const_new(());

const MON: &str = "profile rbd";

/// A user in Ceph, whose capabilities come back with [`User::restore`].
struct User {
    cluster: Cluster,
    name: &'static str,
    /// What the README says.
    osd: &'static str,
    before: Vec<String>,
}

impl User {
    async fn new(cluster: Cluster, name: &'static str, osd: &'static str) -> Result<Self> {
        let get = ["auth", "get", name, "--format", "json"];
        let shown: Value = serde_json::from_str(&cluster.ceph(&get).await?)?;
        let caps = shown[0]["caps"].as_object().context("no capabilities")?;
        let pair = |(kind, text): (&String, &Value)| {
            [kind.clone(), text.as_str().unwrap_or_default().to_owned()]
        };
        Ok(Self {
            before: caps.iter().flat_map(pair).collect(),
            cluster,
            name,
            osd,
        })
    }

    /// Has these capabilities, of which an empty one is none, and no others.
    async fn may(&self, mon: &str, osd: &str) -> Result<()> {
        let all = [("mon", mon), ("osd", osd)].into_iter();
        let given = all.filter(|(_, text)| !text.is_empty());
        let words: Vec<&str> = given.flat_map(|(kind, text)| [kind, text]).collect();
        self.set(&words).await
    }

    /// Lets the worker connect anew: a connection keeps what it was allowed at its beginning.
    async fn disconnect(&self) -> Result<()> {
        for client in self.cluster.clients(self.name).await? {
            let fence = ["osd", "blocklist", "add", &client, "30"];
            self.cluster.ceph(&fence).await?;
        }
        Ok(())
    }

    async fn restore(&self) -> Result<()> {
        let words: Vec<&str> = self.before.iter().map(String::as_str).collect();
        self.set(&words).await
    }

    async fn set(&self, capabilities: &[&str]) -> Result<()> {
        let words = [&["auth", "caps", self.name], capabilities].concat();
        self.cluster.ceph(&words).await?;
        Ok(())
    }
}

/// What becomes of a backup, of a restore to a volume that is there, and of a deletion: the reason of each that
/// fails.
struct Outcome {
    tried: String,
    backup: Option<String>,
    restore: Option<String>,
    delete: Option<String>,
}

/// The volumes and backups that a test works with.
struct Stage {
    setup: Setup,
    volume: String,
    standing: String,
    target: String,
}

impl Stage {
    async fn new() -> Result<Self> {
        let setup = Setup::new().await?;
        let cloud = &setup.cloud;
        let volume = cloud.volume_with_data(1).await?;
        Ok(Self {
            standing: cloud.back_up(&volume, false).await?,
            target: cloud.create_volume(1).await?,
            volume,
            setup,
        })
    }

    /// Tries each operation while the user may do no more than this; then it may do what the README says.
    async fn try_with(&self, user: &User, mon: &str, osd: &str) -> Result<Outcome> {
        let doomed = self.setup.cloud.back_up(&self.volume, false).await?;
        user.may(mon, osd).await?;
        user.disconnect().await?;
        let outcome = self.try_all(&doomed).await;
        user.may(MON, user.osd).await?;
        let outcome = outcome?;
        self.works_again(&outcome).await?;
        Ok(outcome)
    }

    async fn try_all(&self, doomed: &str) -> Result<Outcome> {
        let (cloud, lab) = (&self.setup.cloud, &self.setup.lab);
        let reason = async |backup: &str| -> Result<Option<String>> {
            let shown = cloud.show(Resource::Backup, backup).await?;
            Ok(shown.and_then(|shown| shown["fail_reason"].as_str().map(str::to_owned)))
        };
        let backup = cloud.begin_backup(&self.volume, false).await?;
        cloud.settled(Resource::Backup, &backup).await?;
        cloud.begin_delete(Resource::Backup, doomed).await?;
        cloud.settled(Resource::Backup, doomed).await?;
        cloud
            .begin_restore(&self.standing, Some(&self.target))
            .await?;
        cloud.settled(Resource::Volume, &self.target).await?;
        let restore = match cloud.status(Resource::Volume, &self.target).await?.as_str() {
            "available" => None,
            _ => lab.logged(&self.target)?.pop(),
        };
        Ok(Outcome {
            backup: reason(&backup).await?,
            delete: reason(doomed).await?,
            tried: backup,
            restore,
        })
    }

    /// The volume is as it was, and all of it is done as soon as the worker has seen that it may.
    async fn works_again(&self, outcome: &Outcome) -> Result<()> {
        let (cloud, admin) = (&self.setup.cloud, &self.setup.admin);
        let left = cloud.volumes()?.snapshots(&image(&self.volume)).await?;
        ensure!(
            !left.iter().any(|name| name.contains(&outcome.tried)),
            "{left:?}"
        );
        let again = async || {
            let backup = cloud.begin_backup(&self.volume, false).await?;
            cloud.settled(Resource::Backup, &backup).await
        };
        let made = |status: &Option<String>| status.as_deref() == Some("available");
        eventually("a backup is made again", again, made).await?;
        if outcome.restore.is_some() {
            admin
                .reset(Resource::Volume, &self.target, "available")
                .await?;
        }
        cloud.restore(&self.standing, Some(&self.target)).await?;
        cloud
            .wait(Resource::Volume, &self.volume, "available")
            .await?;
        Ok(())
    }

    /// Deletes everything; neither pool holds anything of it.
    async fn end(self) -> Result<()> {
        let cloud = &self.setup.cloud;
        let path = format!("/backups?volume_id={}", self.volume);
        let (_, listed) = cloud.request(reqwest::Method::GET, &path, None).await?;
        let listed = listed["backups"].as_array().context("no list")?.clone();
        for backup in listed.iter().filter_map(|backup| backup["id"].as_str()) {
            cloud.delete(Resource::Backup, backup).await?;
        }
        let left = cloud.backups()?.images("backups").await?;
        ensure!(
            !left.iter().any(|name| name.contains(&self.volume)),
            "{left:?}"
        );
        let objects = cloud.backups()?.rados(&["-p", "backups", "ls"]).await?;
        for backup in listed.iter().filter_map(|backup| backup["id"].as_str()) {
            ensure!(!objects.contains(backup), "{backup}: {objects}");
        }
        let snapshots = cloud.volumes()?.snapshots(&image(&self.volume)).await?;
        ensure!(snapshots.is_empty(), "{snapshots:?}");
        for volume in [&self.volume, &self.target] {
            cloud.delete(Resource::Volume, volume).await?;
        }
        Ok(())
    }
}

/// A reason names what is missing, and whose it is. Where the worker has seen before that it cannot work with the
/// pool, it refuses everything, and its log tells why.
fn names(lab: &Lab, reason: &Option<String>, words: &[&str]) -> Result<()> {
    let mut reason = reason.clone().context("it did not fail")?;
    if ["service is down", "Service not found"]
        .iter()
        .any(|told| reason.contains(told))
    {
        let mut told = lab.logged("The backup pool cannot be worked with")?;
        reason = told.pop().context("the log does not tell why")?;
    }
    for word in words {
        ensure!(reason.contains(word), "{word}: {reason}");
    }
    Ok(())
}

#[tokio::test]
async fn the_backups_user_needs_each_of_its_capabilities() -> Result<()> {
    let _alone = ALONE.lock().await;
    let stage = Stage::new().await?;
    let user = User::new(
        stage.setup.cloud.backups()?,
        "client.cinder-backup",
        "profile rbd pool=backups",
    )
    .await?;
    let lab = &stage.setup.lab;
    for (mon, osd, place) in [
        ("", user.osd, "cluster ceph-backup"),
        (MON, "", "backups"),
        (MON, "profile rbd-read-only pool=backups", " backups/"),
    ] {
        let outcome = stage.try_with(&user, mon, osd).await?;
        for reason in [&outcome.backup, &outcome.delete] {
            names(lab, reason, &[place, "client.cinder-backup"])?;
        }
        // What only reads the pool needs no more.
        match osd.contains("read-only") {
            true => ensure!(outcome.restore.is_none(), "{:?}", outcome.restore),
            false => names(lab, &outcome.restore, &[place, "client.cinder-backup"])?,
        }
    }
    user.restore().await?;
    stage.end().await
}

#[tokio::test]
async fn the_volumes_user_needs_its_pool_to_read_and_to_write() -> Result<()> {
    let _alone = ALONE.lock().await;
    let stage = Stage::new().await?;
    let user = User::new(
        stage.setup.cloud.volumes()?,
        "client.cinder",
        "profile rbd pool=volumes",
    )
    .await?;
    let lab = &stage.setup.lab;
    for osd in ["", "profile rbd-read-only pool=volumes"] {
        let outcome = stage.try_with(&user, MON, osd).await?;
        for reason in [&outcome.backup, &outcome.restore] {
            names(lab, reason, &[" volumes/", "client.cinder"])?;
        }
        // The volume's snapshot goes with the next backup.
        ensure!(outcome.delete.is_none(), "{:?}", outcome.delete);
    }
    user.restore().await?;
    stage.end().await
}
