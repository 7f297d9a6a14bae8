//! A lab's Ceph cluster, looked at with Ceph's own commands.

use std::process::Stdio;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::Content;
use crate::lab::{Lab, run};
use crate::patience::eventually;

/// One of the lab's two clusters, as its administrator sees it.
#[derive(Clone)]
pub struct Cluster {
    conf: String,
}

/// The image of a volume, with its pool.
pub fn image(volume: &str) -> String {
    format!("volumes/volume-{volume}")
}

impl Cluster {
    /// The cluster of the volumes.
    pub fn volumes(lab: &Lab) -> Result<Self> {
        Ok(Self {
            conf: lab.variable("LAB_VOLUMES_CEPH_CONF")?,
        })
    }

    /// The cluster of the backups.
    pub fn backups(lab: &Lab) -> Result<Self> {
        Ok(Self {
            conf: lab.variable("LAB_BACKUPS_CEPH_CONF")?,
        })
    }

    /// Runs `rbd`.
    pub async fn rbd(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new("rbd")
            .arg("--conf")
            .arg(&self.conf)
            .args(arguments))
        .await
    }

    /// Runs `ceph`.
    pub async fn ceph(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new("ceph")
            .arg("--conf")
            .arg(&self.conf)
            .args(arguments))
        .await
    }

    /// Runs `rados`.
    pub async fn rados(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new("rados")
            .arg("--conf")
            .arg(&self.conf)
            .args(arguments))
        .await
    }

    /// The JSON in an object.
    pub async fn json(&self, pool: &str, object: &str) -> Result<Value> {
        let text = self.rados(&["-p", pool, "get", object, "-"]).await?;
        serde_json::from_str(&text).with_context(|| format!("{object} holds no JSON"))
    }

    /// Writes JSON into an object.
    pub async fn put_json(&self, pool: &str, object: &str, value: &Value) -> Result<()> {
        let file = env::temp_dir().join(format!("cinderblock-{object}"));
        fs::write(&file, value.to_string())?;
        let path = file.to_str().context("no text")?;
        let put = self.rados(&["-p", pool, "put", object, path]).await;
        fs::remove_file(&file)?;
        put.map(drop)
    }

    /// Waits until a pool answers everywhere: an OSD that was stopped for longer than a read lease
    /// lets requests wait, group by group, for longer than cinder-volume has patience.
    pub async fn wait_answers(&self, pool: &str) -> Result<()> {
        let write = ["--pool", pool, "bench", "1", "write", "-b", "4096"];
        self.rados(&write).await?;
        Ok(())
    }

    /// The addresses of a user's connections, as the blocklist wants them.
    pub async fn clients(&self, user: &str) -> Result<Vec<String>> {
        let sessions = self.ceph(&["tell", "mon.*", "sessions"]).await?;
        let sessions: Vec<Value> = serde_json::from_str(&sessions)?;
        let of_user = sessions
            .iter()
            .filter(|session| session["entity_name"] == user);
        let address = |session: &Value| {
            let address = &session["socket_addr"];
            let (host, nonce) = (address["addr"].as_str()?, address["nonce"].as_u64()?);
            Some(format!("{host}/{nonce}"))
        };
        Ok(of_user.filter_map(address).collect())
    }

    /// The images of a pool.
    pub async fn images(&self, pool: &str) -> Result<Vec<String>> {
        let listed = self
            .rbd(&["ls", "--pool", pool, "--format", "json"])
            .await?;
        Ok(serde_json::from_str(&listed)?)
    }

    /// The names of an image's snapshots.
    pub async fn snapshots(&self, image: &str) -> Result<Vec<String>> {
        let listed = self.rbd(&["snap", "ls", image, "--format", "json"]).await?;
        let listed: Vec<Value> = serde_json::from_str(&listed)?;
        Ok(listed
            .iter()
            .filter_map(|snapshot| snapshot["name"].as_str().map(str::to_owned))
            .collect())
    }

    /// Bytes of an image that are allocated.
    pub async fn used(&self, image: &str) -> Result<u64> {
        let usage = self.rbd(&["du", image, "--format", "json"]).await?;
        let usage: Value = serde_json::from_str(&usage)?;
        // One entry for the image and one for each snapshot.
        let entries = usage["images"]
            .as_array()
            .context("rbd du printed no images")?;
        Ok(entries
            .iter()
            .filter_map(|entry| entry["used_size"].as_u64())
            .sum())
    }

    /// Lets whoever opens the image from now on move so many bytes of it in a second: slowly enough to
    /// be met in the middle.
    pub async fn slow_down(&self, image: &str, bytes_per_second: u64) -> Result<()> {
        let limit = bytes_per_second.to_string();
        let limited = ["config", "image", "set", image, "rbd_qos_bps_limit", &limit];
        self.rbd(&limited).await?;
        Ok(())
    }

    /// Waits until more than so many bytes of an image are allocated. The image need not be there yet.
    pub async fn wait_used(&self, image: &str, bytes: u64) -> Result<()> {
        let what = format!("{image} is written into");
        let used = async || Ok(self.used(image).await.unwrap_or_default());
        eventually(&what, used, |used| *used > bytes).await?;
        Ok(())
    }

    /// What an image, or `image@snapshot`, holds.
    pub async fn content(&self, image: &str) -> Result<Content> {
        let output = Command::new("rbd")
            .args(["--conf", &self.conf])
            .args(["export-diff", "--no-progress", image, "-"])
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "rbd export-diff {image} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Content::of_diff(&output.stdout).with_context(|| format!("the diff of {image}"))
    }

    /// Whether the LUKS header of an image opens with a key, as Nova does it: the passphrase is the
    /// key in hexadecimal digits.
    pub async fn opens_with(&self, image: &str, key: &[u8]) -> Result<bool> {
        let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let script = r#"file=$(mktemp) && trap 'rm -f "$file"' EXIT
            rbd --conf "$1" export --no-progress "$2" - 2>/dev/null | head -c 16M >"$file"
            printf %s "$3" | cryptsetup luksOpen --test-passphrase --key-file - "$file" 2>/dev/null
            case $? in 0) echo yes;; 2) echo no;; *) exit 1;; esac"#;
        let words = ["-c", script, "-", &self.conf, image, &digits];
        let answer = run(Command::new("bash").args(words)).await?;
        Ok(answer.trim() == "yes")
    }

    /// Writes `data` into an image at an offset, as one diff that `rbd import-diff` applies.
    pub async fn write(&self, image: &str, offset: u64, data: &[u8]) -> Result<()> {
        self.import_diff(image, &[(offset, Some(data), data.len() as u64)])
            .await
    }

    /// Discards a range of an image.
    pub async fn discard(&self, image: &str, offset: u64, length: u64) -> Result<()> {
        self.import_diff(image, &[(offset, None, length)]).await
    }

    async fn import_diff(&self, image: &str, records: &[(u64, Option<&[u8]>, u64)]) -> Result<()> {
        let mut stream = b"rbd diff v1\n".to_vec();
        for (offset, data, length) in records {
            stream.push(if data.is_some() { b'w' } else { b'z' });
            stream.extend(offset.to_le_bytes());
            stream.extend(length.to_le_bytes());
            stream.extend(data.unwrap_or_default());
        }
        stream.push(b'e');
        let mut child = Command::new("rbd")
            .args([
                "--conf",
                &self.conf,
                "import-diff",
                "--no-progress",
                "-",
                image,
            ])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut input = child.stdin.take().context("rbd has no standard input")?;
        input.write_all(&stream).await?;
        drop(input);
        let output = child.wait_with_output().await?;
        ensure!(
            output.status.success(),
            "rbd import-diff into {image} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}
