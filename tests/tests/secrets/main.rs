//! No secret that reaches the worker leaves it: not into a log, a table, a message, an object, a page of
//! metrics, or what other users of its host can see.
//!
//! Each secret is one that nothing else in the lab has, and is looked for in every form in which it may be
//! printed.

mod forms;
mod places;
mod planted;
mod starts;

use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use cinderblock_tests::{Barbican, Broker, Reconfigured, Resource, Setup, backup_object, image};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use uuid::Uuid;

use forms::Secret;
use places::{Found, Processes};
use planted::Planted;

/// One of these tests restarts the worker.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn none_leaves_a_worker_at_work() -> Result<()> {
    let _alone = ALONE.lock().await;
    let setup = Setup::new().await?;
    let lab = &setup.lab;
    let logged = places::lengths(lab)?;
    let planted = Planted::new(lab, &setup.admin).await?;
    let mut secrets = planted.secrets.clone();
    secrets.push(Secret::new("the user's token", setup.cloud.token()));
    let broker = Broker::connect(lab).await?;
    let mut notifications = broker.listen(&[("openstack", "notifications.#")]).await?;
    // Free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let options = format!(
        "{}[cinderblock]\nmetrics_listen = {address}\n",
        planted.options
    );
    let worker = Reconfigured::worker(lab, &options).await?;
    let processes = Processes::watch(lab)?;
    let mut found = Found::default();

    let work = async {
        life_cycle(&setup, &mut secrets, &mut found).await?;
        requests_that_fail(&setup, &broker, &mut found).await?;
        lab.signal("worker", "USR2").await?;
        let metrics = reqwest::get(format!("http://{address}/metrics")).await?;
        found.add("metrics", metrics.text().await?);
        Ok::<_, anyhow::Error>(())
    }
    .await;
    let seen = processes.stop().await?;
    worker.restore().await?;
    planted.remove().await?;
    work?;

    ensure!(
        seen.iter().any(|seen| seen.contains("os_brick")),
        "no child of the worker was seen"
    );
    for seen in seen {
        found.add("a process", seen);
    }
    for heard in notifications.take()? {
        found.add("a notification", heard.message.to_string());
    }
    found.add_logs(lab, &logged)?;
    found.add_rows(&setup.database).await?;
    found.holds_none(&secrets)
}

/// Backups, restores and deletions, of an encrypted volume too, whose keys are secrets as well.
async fn life_cycle(setup: &Setup, secrets: &mut Vec<Secret>, found: &mut Found) -> Result<()> {
    let cloud = &setup.cloud;
    let volume = cloud.volume_with_data(1).await?;
    let full = cloud.back_up(&volume, false).await?;
    let data = vec![0xA5; 1 << 16];
    cloud.volumes()?.write(&image(&volume), 0, &data).await?;
    let increment = cloud.back_up(&volume, true).await?;
    let restored = cloud.restore(&increment, None).await?;

    let barbican = Barbican::new(&setup.lab, cloud)?;
    let encrypted = cloud.create_encrypted_volume(None).await?;
    let of_encrypted = cloud.back_up(&encrypted, false).await?;
    for (what, id) in [
        (Resource::Volume, &encrypted),
        (Resource::Backup, &of_encrypted),
    ] {
        let key = barbican.payload(&cloud.key(what, id).await?).await?;
        secrets.push(Secret::of_bytes(&format!("the key of a {what:?}"), &key));
    }

    for arguments in [
        &["-vv", "status", &full, &increment, &of_encrypted] as &[&str],
        &["-vv", "verify", "--output", "json", &increment],
    ] {
        let output = setup.lab.tool(arguments).await?;
        let told = [output.stdout, output.stderr].concat();
        found.add(arguments[1], String::from_utf8_lossy(&told).into_owned());
        ensure!(output.status.success(), "{arguments:?}: {}", output.status);
    }
    found.add_rows(&setup.database).await?;
    for backup in [&of_encrypted, &increment, &full] {
        found.add_objects(&cloud.backups()?, backup).await?;
        cloud.delete(Resource::Backup, backup).await?;
    }
    for volume in [&restored, &encrypted, &volume] {
        cloud.delete(Resource::Volume, volume).await?;
    }
    Ok(())
}

/// What the worker tells of, with a user's token in the request.
async fn requests_that_fail(setup: &Setup, broker: &Broker, found: &mut Found) -> Result<()> {
    let cloud = &setup.cloud;
    let token = cloud.token();
    let request = |method: &str, args: Value| {
        json!({
            "method": method, "version": "2.0", "args": args,
            "_unique_id": Uuid::new_v4().simple().to_string(),
            "_context_request_id": format!("req-{}", Uuid::new_v4()),
            "_context_auth_token": token, "_context_project_id": cloud.project(),
        })
    };
    let unknown = json!({"backup": backup_object(&Uuid::new_v4().to_string())});
    let mut odd = request("create_backup", json!({}));
    odd["_context_auth_token"] = json!([token]);
    let mut without_method = request("create_backup", json!({}));
    without_method["method"] = json!({"name": 1});
    for message in [
        request("no_such_method", json!({})),
        request("create_backup", json!({})),
        request("create_backup", json!({"backup": "no object"})),
        request("delete_backup", unknown),
        odd,
        without_method,
    ] {
        broker.hand_to_worker(&message).await?;
    }
    // Broken off behind the token.
    let whole = request("create_backup", json!({})).to_string();
    let end = whole.find(token).context("no token")? + token.len();
    broker.publish_to_worker(&whole.as_bytes()[..end]).await?;
    let envelope = json!({"oslo.version": "2.0", "oslo.message": &whole[..end]});
    let envelope = envelope.to_string();
    broker.publish_to_worker(envelope.as_bytes()).await?;

    let volume = cloud.create_volume(1).await?;
    let remove = ["rm", "--no-progress", &image(&volume)];
    cloud.volumes()?.rbd(&remove).await?;
    let backup = cloud.begin_backup(&volume, false).await?;
    found.add("fail_reason", cloud.wait_failed(&backup).await?);
    setup.lab.wait_error(&backup).await?;
    found.add_rows(&setup.database).await?;
    cloud.delete(Resource::Backup, &backup).await?;
    cloud.delete(Resource::Volume, &volume).await
}
