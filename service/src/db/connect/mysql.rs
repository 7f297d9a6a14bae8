//! Connecting to MySQL and MariaDB.

use api_compat::config::database_url::DatabaseUrl;
use api_compat::config::tls::{Tls, TlsMode};
use sea_orm::sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sea_orm::sqlx::{self, ConnectOptions, MySqlConnection};
use sea_orm::{DatabaseConnection, SqlxMySqlConnector};
use secrecy::ExposeSecret;

use super::tls::{Authority, authorities, converted_key};
use super::{Options, Result, Retired, first, pool, refused};

pub(super) async fn open(options: &Options, retired: &Retired) -> Result<DatabaseConnection> {
    let ways = sessions(&options.url)?;
    let session = first(options, ways, async |session| {
        let mut connection = session.connect().await?;
        prepare(&mut connection, options).await
    })
    .await?;
    let prepared = options.clone();
    let pool = pool(options, retired)
        .after_connect(move |connection, _| {
            let options = prepared.clone();
            Box::pin(async move { prepare(connection, &options).await })
        })
        .connect_with(session)
        .await
        .map_err(refused)?;
    Ok(SqlxMySqlConnector::from_sqlx_mysql_pool(pool))
}

/// Sets the variables of a session.
async fn prepare(session: &mut MySqlConnection, options: &Options) -> sqlx::Result<()> {
    if let Some(mode) = &options.sql_mode {
        let statement = sqlx::query("SET SESSION sql_mode = ?").bind(mode);
        statement.execute(&mut *session).await?;
    }
    if let Some(what) = options.wsrep_sync_wait {
        let statement = sqlx::query("SET SESSION wsrep_sync_wait = ?").bind(what);
        statement.execute(session).await?;
    }
    Ok(())
}

/// The driver's own options. The URL is never handed on as text: the driver drops the names in
/// its query that it does not know, `ssl_ca` among them, and would connect in clear text.
fn session(url: &DatabaseUrl) -> MySqlConnectOptions {
    let mut session = MySqlConnectOptions::new();
    if let Some(user) = &url.user {
        session = session.username(user);
    }
    if let Some(password) = &url.password {
        session = session.password(password.expose_secret());
    }
    if let Some(host) = &url.host {
        session = session.host(host);
    }
    if let Some(port) = url.port {
        session = session.port(port);
    }
    if let Some(socket) = &url.unix_socket {
        session = session.socket(socket);
    }
    if let Some(database) = &url.database {
        session = session.database(database);
    }
    if let Some(charset) = &url.charset {
        session = session.charset(charset);
    }
    session
}

/// One for each authority that may have signed the server's certificate.
fn sessions(url: &DatabaseUrl) -> Result<Vec<MySqlConnectOptions>> {
    let session = encrypted(session(url), &url.tls)?;
    let with = |authority| match authority {
        Authority::Named => session.clone(),
        Authority::OneOf(pem) => session.clone().ssl_ca_from_pem(pem),
    };
    Ok(authorities(&url.tls)?.into_iter().map(with).collect())
}

fn encrypted(mut session: MySqlConnectOptions, tls: &Tls) -> Result<MySqlConnectOptions> {
    session = session.ssl_mode(match tls.mode {
        TlsMode::Disabled => MySqlSslMode::Disabled,
        TlsMode::Preferred => MySqlSslMode::Preferred,
        TlsMode::Required => MySqlSslMode::Required,
        TlsMode::VerifyCa => MySqlSslMode::VerifyCa,
        TlsMode::VerifyIdentity => MySqlSslMode::VerifyIdentity,
    });
    if let Some(ca) = &tls.ca {
        session = session.ssl_ca(ca);
    }
    if let Some(certificate) = &tls.certificate {
        session = session.ssl_client_cert(certificate);
    }
    if let Some(key) = &tls.key {
        session = match converted_key(tls)? {
            Some(pem) => session.ssl_client_key_from_pem(pem),
            None => session.ssl_client_key(key),
        };
    }
    Ok(session)
}
