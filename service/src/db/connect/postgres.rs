//! Connecting to PostgreSQL.

use api_compat::config::database_url::DatabaseUrl;
use api_compat::config::tls::{Tls, TlsMode};
use sea_orm::sqlx::ConnectOptions;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgSslMode};
use sea_orm::{DatabaseConnection, SqlxPostgresConnector};
use secrecy::ExposeSecret;

use super::tls::{Authority, authorities, converted_key};
use super::{Options, Result, Retired, first, pool, refused};

pub(super) async fn open(options: &Options, retired: &Retired) -> Result<DatabaseConnection> {
    let ways = sessions(&options.url)?;
    let session = first(options, ways, async |session| session.connect().await).await?;
    let pool = pool(options, retired)
        .connect_with(session)
        .await
        .map_err(refused)?;
    Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
}

/// The driver's own options. What the URL does not name comes from the environment, as with libpq; what
/// that says of encryption is in `url.tls` already.
fn session(url: &DatabaseUrl) -> PgConnectOptions {
    // In a password file, it would look for what the environment names, not the URL.
    let mut session = PgConnectOptions::new_without_pgpass();
    if let Some(user) = &url.user {
        session = session.username(user);
    }
    if let Some(host) = &url.host {
        session = session.host(host);
    }
    if let Some(port) = url.port {
        session = session.port(port);
    }
    if let Some(folder) = &url.unix_socket {
        session = session.socket(folder);
    }
    if let Some(database) = &url.database {
        session = session.database(database);
    }
    if let Some(password) = &url.password {
        session = session.password(password.expose_secret());
    }
    if let Some(name) = &url.application_name {
        session = session.application_name(name);
    }
    session
}

/// One for each authority that may have signed the server's certificate.
fn sessions(url: &DatabaseUrl) -> Result<Vec<PgConnectOptions>> {
    let session = session(url);
    if url.unix_socket.is_some() {
        // As libpq: there is no network in between, and the server would refuse.
        return Ok(vec![session.ssl_mode(PgSslMode::Disable)]);
    }
    let session = encrypted(session, &url.tls)?;
    let with = |authority| match authority {
        Authority::Named => session.clone(),
        Authority::OneOf(pem) => session.clone().ssl_root_cert_from_pem(pem),
    };
    Ok(authorities(&url.tls)?.into_iter().map(with).collect())
}

fn encrypted(mut session: PgConnectOptions, tls: &Tls) -> Result<PgConnectOptions> {
    session = session.ssl_mode(match tls.mode {
        TlsMode::Disabled => PgSslMode::Disable,
        TlsMode::Preferred => PgSslMode::Prefer,
        TlsMode::Required => PgSslMode::Require,
        TlsMode::VerifyCa => PgSslMode::VerifyCa,
        TlsMode::VerifyIdentity => PgSslMode::VerifyFull,
    });
    if let Some(ca) = &tls.ca {
        session = session.ssl_root_cert(ca);
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
