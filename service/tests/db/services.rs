//! The worker's own row.

use api_compat::config::database_url::Backend;
use api_compat::state::VolumeStatus;
use cinderblock::db::entity::services;
use cinderblock::db::{Registration, Sign};
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Query};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use crate::lab::{Lab, backend, before, now};

/// A worker of a binary of its own, so that no other service takes it for a `cinder-backup`.
pub fn registration(lab: &Lab, host: &str) -> Registration {
    Registration {
        host: host.to_owned(),
        binary: lab.project.clone(),
        zone: "nova".to_owned(),
        rpc_version: "2.4".to_owned(),
        object_version: "1.39".to_owned(),
        enabled: true,
    }
}

async fn row(lab: &Lab, id: i32) -> services::Model {
    let row = services::Entity::find_by_id(id).one(&lab.raw).await;
    row.expect("query").expect("a service")
}

#[tokio::test]
async fn a_new_worker_gets_a_row_as_cinder_makes_it() {
    let lab = Lab::new().await;
    for (host, enabled) in [("one", true), ("two", false)] {
        let registration = Registration {
            enabled,
            ..registration(&lab, host)
        };
        let id = lab.db.register(&registration, now()).await.expect("row");
        let row = row(&lab, id).await;
        assert!(row.uuid.as_deref().is_some_and(|uuid| {
            let parsed = Uuid::try_parse(uuid).expect("a UUID");
            parsed.hyphenated().to_string() == uuid
        }));
        let expected = services::Model {
            id,
            uuid: row.uuid.clone(),
            host: Some(host.to_owned()),
            binary: Some(lab.project.clone()),
            topic: Some(lab.project.clone()),
            report_count: 0,
            disabled: Some(!enabled),
            availability_zone: Some("nova".to_owned()),
            rpc_current_version: Some("2.4".to_owned()),
            object_current_version: Some("1.39".to_owned()),
            replication_status: Some("not-capable".to_owned()),
            frozen: Some(false),
            cluster_name: None,
            created_at: Some(now()),
            updated_at: Some(now()),
            deleted_at: None,
            deleted: Some(false),
        };
        assert_eq!(row, expected);
    }
}

#[tokio::test]
async fn a_known_worker_keeps_its_row_and_what_an_operator_wrote_there() {
    let lab = Lab::new().await;
    let first = registration(&lab, "host");
    let id = lab.db.register(&first, before()).await.expect("row");
    let disable = Query::update()
        .table(services::Entity)
        .value(services::Column::Disabled, true)
        .value(Alias::new("disabled_reason"), "disk")
        .and_where(Expr::col(services::Column::Id).eq(id))
        .to_owned();
    lab.raw.execute(&disable).await.expect("disable");
    let found = row(&lab, id).await;
    assert_eq!(lab.db.register(&first, now()).await.expect("row"), id);
    assert_eq!(row(&lab, id).await, found);

    let newer = Registration {
        rpc_version: "2.5".to_owned(),
        object_version: "1.40".to_owned(),
        zone: "elsewhere".to_owned(),
        ..first
    };
    assert_eq!(lab.db.register(&newer, now()).await.expect("row"), id);
    let expected = services::Model {
        rpc_current_version: Some("2.5".to_owned()),
        object_current_version: Some("1.40".to_owned()),
        updated_at: Some(now()),
        ..found
    };
    assert_eq!(row(&lab, id).await, expected);
    let versions = lab.db.versions().await.expect("query");
    let own = versions
        .iter()
        .find(|v| v.binary.as_deref() == Some(lab.project.as_str()))
        .expect("its versions");
    assert_eq!(own.rpc.as_deref(), Some("2.5"));
    assert_eq!(own.objects.as_deref(), Some("1.40"));
}

#[tokio::test]
async fn what_workers_said_last_is_seen_of_each_kind_by_itself() {
    let lab = Lab::new().await;
    let silent = registration(&lab, "silent");
    let silent = lab.db.register(&silent, before()).await.expect("row");
    let loud = Registration {
        enabled: false,
        ..registration(&lab, "loud")
    };
    let loud = lab.db.register(&loud, before()).await.expect("row");
    assert!(
        lab.db
            .heartbeat(loud, "zone", now())
            .await
            .expect("written")
    );
    let sign = |host: &str, zone: &str, disabled, beat| Sign {
        host: host.to_owned(),
        zone: Some(zone.to_owned()),
        disabled,
        beat,
    };
    let mut signs = lab.db.signs_of_life(&lab.project).await.expect("query");
    signs.sort_by(|one, other| one.host.cmp(&other.host));
    let expected = [
        sign("loud", "zone", true, (Some(now()), 1)),
        sign("silent", "nova", false, (Some(before()), 0)),
    ];
    assert_eq!(signs, expected);
    let deleted = Query::update()
        .table(services::Entity)
        .value(services::Column::Deleted, true)
        .and_where(Expr::col(services::Column::Id).eq(silent))
        .to_owned();
    lab.raw.execute(&deleted).await.expect("deleted");
    let signs = lab.db.signs_of_life(&lab.project).await.expect("query");
    assert_eq!(signs, expected[..1]);
    assert_eq!(lab.db.signs_of_life("another").await.expect("query"), []);
}

#[tokio::test]
async fn hosts_that_the_collation_takes_for_the_same_are_kept_apart() {
    let lab = Lab::new().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        for host in ["host", "HOST", "host ", "höst"] {
            let id = lab.db.register(&registration(&lab, host), now()).await;
            let id = id.expect("row");
            assert_eq!(row(&lab, id).await.host.as_deref(), Some(host));
            ids.push(id);
        }
    }
    assert_eq!(ids[..4], ids[4..]);
    ids.dedup();
    ids.truncate(4);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn a_heartbeat_counts_and_leaves_the_rest() {
    let lab = Lab::new().await;
    let registration = registration(&lab, "host");
    let id = lab.db.register(&registration, before()).await.expect("row");
    let found = row(&lab, id).await;
    for count in 1..=2 {
        let alive = lab.db.heartbeat(id, "other zone", now()).await;
        assert!(alive.expect("heartbeat"));
        let expected = services::Model {
            report_count: count,
            availability_zone: Some("other zone".to_owned()),
            updated_at: Some(now()),
            ..found.clone()
        };
        assert_eq!(row(&lab, id).await, expected);
    }
}

#[tokio::test]
async fn a_worker_whose_row_is_gone_learns_it_and_gets_a_new_one() {
    let lab = Lab::new().await;
    let registration = registration(&lab, "host");
    for marked in [true, false] {
        let id = lab.db.register(&registration, before()).await.expect("row");
        if marked {
            let mark = services::Entity::update_many()
                .col_expr(services::Column::Deleted, true.into())
                .filter(services::Column::Id.eq(id));
            mark.exec(&lab.raw).await.expect("mark");
        } else {
            let delete = services::Entity::delete_by_id(id);
            delete.exec(&lab.raw).await.expect("delete");
        }
        assert!(
            !lab.db
                .heartbeat(id, "nova", now())
                .await
                .expect("heartbeat")
        );
        let new = lab.db.register(&registration, now()).await.expect("row");
        // SQLite gives the id of a row that was deleted to the next one.
        assert!(new != id || !marked && backend() == Backend::Sqlite);
        assert!(
            lab.db
                .heartbeat(new, "nova", now())
                .await
                .expect("heartbeat")
        );
    }
}

#[tokio::test]
async fn a_volume_is_served_while_its_cinder_volume_says_that_it_lives() {
    let lab = Lab::new().await;
    let host = format!("{}@ceph", lab.project);
    let registration = Registration {
        binary: "cinder-volume".to_owned(),
        ..registration(&lab, &host)
    };
    let id = lab.db.register(&registration, now()).await.expect("row");
    let served = async |host: &str, cluster: Option<&str>| {
        let volume = lab
            .volume(VolumeStatus::BackingUp, |row| {
                row.host = Set(Some(host.to_owned()));
                row.cluster_name = Set(cluster.map(str::to_owned));
            })
            .await;
        let volume = lab.db.volume(volume).await.expect("query").expect("one");
        let second = std::time::Duration::from_secs(1);
        let since = lab.db.serves_volume(&volume, now()).await.expect("query");
        let later = lab.db.serves_volume(&volume, now() + second).await;
        (since, later.expect("query"))
    };
    let of_pool = served(&format!("{host}#pool"), None).await;
    let of_other = served("elsewhere@ceph#pool", None).await;
    let joined = services::Entity::update_many()
        .col_expr(services::Column::ClusterName, "cluster@ceph".into())
        .filter(services::Column::Id.eq(id))
        .exec(&lab.raw)
        .await;
    let of_cluster = served("elsewhere@ceph#pool", Some("cluster@ceph#pool")).await;
    let gone = services::Entity::delete_by_id(id).exec(&lab.raw).await;
    joined.expect("join");
    gone.expect("delete");
    assert_eq!(of_pool, (true, false));
    assert_eq!(of_other, (false, false));
    assert_eq!(of_cluster, (true, false));
}
