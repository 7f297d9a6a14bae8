//! What the OSDs are told about bulk data.

use std::time::Duration;

use cinderblock::rbd::ImageOptions;
use cinderblock::transfer::Destination;
use serde_json::Value;

use crate::ceph_lab::{MIB, Noise, Site, backups, tool, usual_features, volumes};
use crate::{copy, write};

/// The reads and writes of an object that an OSD remembers.
fn asked(site: &Site, object: &str) -> Vec<String> {
    let told = tool("ceph", &site.conf, &["tell", "osd.0", "dump_historic_ops"]);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let asked = told["ops"].as_array().expect("a list").iter();
    let asked = asked.filter_map(|asked| asked["description"].as_str());
    let of_data = |text: &&str| text.contains(object) && text.contains(" 0~");
    asked.filter(of_data).map(str::to_owned).collect()
}

#[tokio::test]
async fn nothing_is_kept_for_the_sake_of_a_transfer() {
    let mut noise = Noise::new(91);
    let options = ImageOptions {
        size: 8 * MIB,
        features: Some(usual_features()),
        ..ImageOptions::default()
    };
    let sites = [volumes().await, backups().await];
    for site in &sites {
        let history = ["osd_op_history_size", "20000"];
        let remember = [&["tell", "osd.0", "config", "set"], history.as_slice()].concat();
        tool("ceph", &site.conf, &remember);
    }
    let (_from, source) = sites[0].image(&options).await;
    let (_to, target) = sites[1].image(&options).await;
    write(&source, 0, noise.bytes(2 * MIB)).await;
    copy(&source, None, &target, Destination::Fresh).await;
    for (site, image, what) in [
        (&sites[0], &source, "read 0~2097152"),
        (&sites[1], &target, "write 0~2097152"),
    ] {
        // An OSD remembers what it has done a moment later.
        let mut found = None;
        for _ in 0..100 {
            let asked = asked(site, &image.object_at(0));
            found = asked.into_iter().find(|asked| asked.contains(what));
            if found.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let asked = found.expect("it was asked");
        // librbd 16.2 passes the last of several hints on.
        assert!(asked.contains("fadvise_nocache"), "{asked}");
    }
    source.close().await;
    target.close().await;
}
