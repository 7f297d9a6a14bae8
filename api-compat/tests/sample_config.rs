//! `etc/cinder-backup.conf.sample` is what the option registry says.

use std::path::Path;

#[test]
fn the_sample_file_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/cinder-backup.conf.sample");
    let generated = api_compat::config::sample();
    if std::env::var_os("UPDATE_SAMPLE").is_some() {
        std::fs::write(&path, &generated).expect("write the sample file");
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == generated,
        "etc/cinder-backup.conf.sample differs from the option registry: run \
         `UPDATE_SAMPLE=1 cargo test -p cinderblock-api-compat --test sample_config`, \
         or `make sample`"
    );
}
