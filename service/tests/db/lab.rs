//! A project that goes with its test, and its rows as they are in the database.

use std::collections::BTreeMap;
use std::time::Duration;

use api_compat::config::database_url::{Backend, DatabaseUrl};
use api_compat::ids::{BackupId, SnapshotId, VolumeId};
use api_compat::state::{BackupStatus, Change, Event, Source, VolumeStatus, transition};
use chrono::{DateTime, NaiveDateTime};
use cinderblock::db::entity::{
    backup_metadata, backups, messages, quota_usages, reservations, services, snapshots,
    volume_glance_metadata, volume_metadata, volumes,
};
use cinderblock::db::{Database, Options, QuotaRules, Subject};
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ActiveModelBehavior, ActiveModelTrait, ColumnTrait, DatabaseConnection, EntityTrait,
    IntoActiveModel, ModelTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select,
};
use uuid::Uuid;

/// The type of volumes here; none by that id exists.
pub const TYPE: &str = "11111111-2222-3333-4444-555555555555";

/// The host of a backup whose test wants no other.
pub const HOST: &str = "a-host";

/// When the rows of a test were made. It lies ahead of every clock, so that no service that is
/// connected to the same database takes a row for expired.
pub fn before() -> NaiveDateTime {
    DateTime::from_timestamp(2_000_000_000, 0)
        .expect("a time")
        .naive_utc()
}

/// When they are changed: an hour later.
pub fn now() -> NaiveDateTime {
    before() + Duration::from_secs(3600)
}

/// The lab's database.
pub fn lab_url() -> String {
    std::env::var("LAB_DATABASE_URL")
        .unwrap_or_else(|_| panic!("LAB_DATABASE_URL is not set: run `make test`"))
}

/// The release of Cinder whose schema it has.
pub fn cinder_release() -> u32 {
    let release = std::env::var("LAB_CINDER_RELEASE").ok();
    let release = release.and_then(|release| release.parse().ok());
    release.unwrap_or_else(|| panic!("LAB_CINDER_RELEASE is not set: run `make test`"))
}

/// The database under test; without TLS, which costs most of a test's time and hides what is said from
/// those that listen.
pub fn url() -> String {
    let clear = match backend() {
        Backend::MySql => "?ssl_disabled=true",
        Backend::Postgres => "?sslmode=disable",
        Backend::Sqlite => "",
    };
    format!("{}{clear}", lab_url())
}

/// Which system it is.
pub fn backend() -> Backend {
    parsed(&lab_url()).backend
}

/// The same database through something that listens at `address`, and where the server itself is.
pub fn through(address: std::net::SocketAddr) -> (String, (String, u16)) {
    let url = url();
    let server = parsed(&url);
    let host = server.host.expect("LAB_DATABASE_URL has a host");
    let port = server.port.expect("LAB_DATABASE_URL has a port");
    let place = url.replacen(&format!("@{host}:{port}"), &format!("@{address}"), 1);
    (place, (host, port))
}

fn parsed(url: &str) -> DatabaseUrl {
    DatabaseUrl::parse(url, "", &BTreeMap::new()).expect("LAB_DATABASE_URL is a URL")
}

/// How the tests connect: like the service, but they wait less.
pub fn options(url: &str) -> Options {
    Options {
        url: parsed(url),
        connections: 8,
        recycle: Some(Duration::from_secs(3600)),
        acquire: Duration::from_secs(30),
        sql_mode: Some("TRADITIONAL".to_owned()),
        wsrep_sync_wait: None,
        start_tries: Some(0),
        start_interval: Duration::from_millis(10),
        transaction_tries: 20,
        transaction_wait: Duration::from_millis(10),
        transaction_longest_wait: Duration::from_millis(500),
        transaction_limit: Duration::from_secs(120),
    }
}

/// Usages are never counted anew.
pub fn rules() -> QuotaRules {
    QuotaRules {
        reservation_expire: 86_400,
        ..QuotaRules::default()
    }
}

/// A deletion that is complete, of a backup for which nothing waits.
pub const DELETED: Event<'static> = Event::DeleteSucceeded {
    source: Source::Gone,
};

/// What an event does to a backup that has `status`.
pub fn change(status: BackupStatus, event: &Event<'_>) -> Change {
    transition(status, event).expect("the event is allowed")
}

/// A backup on its own.
pub fn subject(backup: BackupId, status: BackupStatus) -> Subject<'static> {
    Subject::alone(backup, status)
}

/// A project, and two ways to the database: ours, and one that knows nothing of it.
pub struct Lab {
    pub db: Database,
    pub raw: DatabaseConnection,
    /// The project's id; also the binary of its services.
    pub project: String,
}

impl Lab {
    pub async fn new() -> Self {
        Self::through(&url()).await
    }

    /// A lab whose `db` connects to another address.
    pub async fn through(url: &str) -> Self {
        Self {
            db: Database::connect(&options(url)).await.expect("connect"),
            raw: raw(&self::url()).await,
            project: Uuid::new_v4().simple().to_string(),
        }
    }

    /// Inserts a backup with `status`, and with what `fill` gives it.
    pub async fn backup(
        &self,
        status: BackupStatus,
        fill: impl FnOnce(&mut backups::ActiveModel),
    ) -> BackupId {
        let id = BackupId::from(Uuid::new_v4());
        let mut row = backups::ActiveModel {
            id: Set(id.to_string()),
            volume_id: Set(Uuid::new_v4().to_string()),
            project_id: Set(Some(self.project.clone())),
            host: Set(Some(HOST.to_owned())),
            status: Set(Some(status.to_string())),
            created_at: Set(Some(before())),
            updated_at: Set(Some(before())),
            deleted: Set(Some(false)),
            ..Default::default()
        };
        fill(&mut row);
        backups::Entity::insert(row)
            .exec_without_returning(&self.raw)
            .await
            .expect("backup");
        id
    }

    /// Inserts a volume with `status`, and with what `fill` gives it.
    pub async fn volume(
        &self,
        status: VolumeStatus,
        fill: impl FnOnce(&mut volumes::ActiveModel),
    ) -> VolumeId {
        let id = VolumeId::from(Uuid::new_v4());
        let mut row = volumes::ActiveModel {
            id: Set(id.to_string()),
            project_id: Set(Some(self.project.clone())),
            use_quota: Set(Some(true)),
            volume_type_id: Set(Some(TYPE.to_owned())),
            status: Set(Some(status.to_string())),
            created_at: Set(Some(before())),
            updated_at: Set(Some(before())),
            deleted: Set(Some(false)),
            ..Default::default()
        };
        fill(&mut row);
        volumes::Entity::insert(row)
            .exec_without_returning(&self.raw)
            .await
            .expect("volume");
        id
    }

    /// Inserts a snapshot of a volume.
    pub async fn snapshot(&self, volume: VolumeId, status: &str) -> SnapshotId {
        let id = SnapshotId::from(Uuid::new_v4());
        let row = snapshots::ActiveModel {
            id: Set(id.to_string()),
            volume_id: Set(volume.to_string()),
            project_id: Set(Some(self.project.clone())),
            use_quota: Set(Some(true)),
            volume_type_id: Set(Some(TYPE.to_owned())),
            status: Set(Some(status.to_owned())),
            volume_size: Set(Some(1)),
            created_at: Set(Some(before())),
            deleted: Set(Some(false)),
            ..Default::default()
        };
        snapshots::Entity::insert(row)
            .exec_without_returning(&self.raw)
            .await
            .expect("snapshot");
        id
    }

    /// Inserts what the project uses of a resource.
    pub async fn usage(&self, resource: &str, in_use: i32, until_refresh: Option<i32>) {
        let row = quota_usages::ActiveModel {
            project_id: Set(Some(self.project.clone())),
            resource: Set(Some(resource.to_owned())),
            in_use: Set(in_use),
            reserved: Set(0),
            until_refresh: Set(until_refresh),
            race_preventer: Set(Some(true)),
            created_at: Set(Some(before())),
            updated_at: Set(Some(before())),
            deleted: Set(Some(false)),
            ..Default::default()
        };
        row.insert(&self.raw).await.expect("usage");
    }

    /// Inserts one of the user's pairs of a backup.
    pub async fn backup_pair(&self, backup: BackupId, key: &str, value: &str) {
        let row = backup_metadata::ActiveModel {
            backup_id: Set(backup.to_string()),
            key: Set(Some(key.to_owned())),
            value: Set(Some(value.to_owned())),
            created_at: Set(Some(before())),
            deleted: Set(Some(false)),
            ..Default::default()
        };
        row.insert(&self.raw).await.expect("backup metadata");
    }

    /// A backup's row.
    pub async fn backup_row(&self, id: BackupId) -> backups::Model {
        let row = backups::Entity::find_by_id(id.to_string());
        row.one(&self.raw).await.expect("query").expect("a backup")
    }

    /// A volume's row.
    pub async fn volume_row(&self, id: VolumeId) -> volumes::Model {
        let row = volumes::Entity::find_by_id(id.to_string());
        row.one(&self.raw).await.expect("query").expect("a volume")
    }

    /// What the project uses, in the order of the rows.
    pub async fn usages(&self) -> Vec<quota_usages::Model> {
        quota_usages::Entity::find()
            .filter(quota_usages::Column::ProjectId.eq(&self.project))
            .order_by_asc(quota_usages::Column::Id)
            .all(&self.raw)
            .await
            .expect("query")
    }

    /// What the project uses: backups and GiB.
    pub async fn in_use(&self) -> (i32, i32) {
        let usages = self.usages().await;
        assert_eq!(usages.len(), 2, "{usages:?}");
        let of = |resource: &str| {
            let usage = usages
                .iter()
                .find(|u| u.resource.as_deref() == Some(resource));
            usage.expect("a usage").in_use
        };
        (of("backups"), of("backup_gigabytes"))
    }

    /// The project's reservations, in the order in which they were made.
    pub async fn reservations(&self) -> Vec<reservations::Model> {
        reservations::Entity::find()
            .filter(reservations::Column::ProjectId.eq(&self.project))
            .order_by_asc(reservations::Column::Id)
            .all(&self.raw)
            .await
            .expect("query")
    }
}

impl Drop for Lab {
    /// Takes the project's rows away, after a failure too.
    fn drop(&mut self) {
        let project = self.project.clone();
        let cleaning = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime")
                .block_on(remove(&project))
        });
        if cleaning.join().is_err() {
            eprintln!("rows of project {} are left behind", self.project);
        }
    }
}

/// A way to the database that knows nothing of ours.
pub async fn raw(url: &str) -> DatabaseConnection {
    let url = url
        .replacen("mysql+pymysql:", "mysql:", 1)
        .replacen("ssl_disabled=true", "ssl-mode=disabled", 1)
        .replacen("postgresql+psycopg2:", "postgresql:", 1)
        .replacen("sqlite:///", "sqlite://", 1);
    sea_orm::Database::connect(url).await.expect("connect")
}

/// Deletes what belongs to a project; children first.
async fn remove(project: &str) {
    let raw = &raw(&url()).await;
    let own_backups = backups::Entity::find()
        .filter(backups::Column::ProjectId.eq(project))
        .select_only()
        .column(backups::Column::Id)
        .into_query();
    let own_volumes = volumes::Entity::find()
        .filter(volumes::Column::ProjectId.eq(project))
        .select_only()
        .column(volumes::Column::Id)
        .into_query();
    rows(
        raw,
        reservations::Entity::find().filter(reservations::Column::ProjectId.eq(project)),
    )
    .await;
    rows(
        raw,
        quota_usages::Entity::find().filter(quota_usages::Column::ProjectId.eq(project)),
    )
    .await;
    rows(
        raw,
        messages::Entity::find().filter(messages::Column::ProjectId.eq(project)),
    )
    .await;
    let of_backups = backup_metadata::Column::BackupId.in_subquery(own_backups);
    rows(raw, backup_metadata::Entity::find().filter(of_backups)).await;
    let of_volumes = volume_metadata::Column::VolumeId.in_subquery(own_volumes.clone());
    rows(raw, volume_metadata::Entity::find().filter(of_volumes)).await;
    let of_volumes = volume_glance_metadata::Column::VolumeId.in_subquery(own_volumes);
    rows(
        raw,
        volume_glance_metadata::Entity::find().filter(of_volumes),
    )
    .await;
    rows(
        raw,
        snapshots::Entity::find().filter(snapshots::Column::ProjectId.eq(project)),
    )
    .await;
    rows(
        raw,
        volumes::Entity::find().filter(volumes::Column::ProjectId.eq(project)),
    )
    .await;
    rows(
        raw,
        backups::Entity::find().filter(backups::Column::ProjectId.eq(project)),
    )
    .await;
    rows(
        raw,
        services::Entity::find().filter(services::Column::Binary.eq(project)),
    )
    .await;
}

/// Deletes row by row, since a search would lock rows of others.
async fn rows<E>(raw: &DatabaseConnection, find: Select<E>)
where
    E: EntityTrait,
    E::Model: IntoActiveModel<E::ActiveModel>,
    E::ActiveModel: ActiveModelBehavior + Send,
{
    for row in find.all(raw).await.expect("find rows") {
        row.delete(raw).await.expect("delete a row");
    }
}
