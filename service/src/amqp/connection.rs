//! Connecting to one of the brokers.

use api_compat::config::LoginMethod;
use lapin::uri::{
    AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism,
};
use lapin::{Connection, ConnectionProperties};
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::{Broker, wire};

/// Opens a connection to the `turn`-th host of the list, which starts again at its end. `purpose`
/// becomes a part of the name that RabbitMQ shows.
///
/// # Errors
/// The reason as a text without credentials.
pub async fn open(broker: &Broker, turn: usize, purpose: &str) -> Result<Connection, String> {
    let host = &broker.url.hosts[turn % broker.url.hosts.len()];
    // lapin takes it for granted.
    wire::short(&broker.url.virtual_host).map_err(|error| error.to_string())?;
    let address = format!("{}:{}", host.host, host.port);
    let name = format!(
        "cinder-backup:{}:{purpose}:{}",
        std::process::id(),
        Uuid::new_v4()
    );
    let uri = AMQPUri {
        scheme: match broker.tls {
            Some(_) => AMQPScheme::AMQPS,
            None => AMQPScheme::AMQP,
        },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: host.user.clone(),
                password: host.password.expose_secret().to_owned(),
            },
            host: host.host.clone(),
            port: host.port,
        },
        vhost: broker.url.virtual_host.clone(),
        query: AMQPQueryString {
            heartbeat: Some(broker.heartbeat),
            auth_mechanism: Some(match broker.login {
                LoginMethod::Plain => SASLMechanism::Plain,
                LoginMethod::AmqPlain => SASLMechanism::AMQPlain,
                LoginMethod::External => SASLMechanism::External,
                LoginMethod::RabbitCrDemo => SASLMechanism::RabbitCrDemo,
            }),
            ..AMQPQueryString::default()
        },
    };
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
    let tls = broker.tls.clone().unwrap_or_default();
    let connecting = Connection::connect_uri_with_config(uri, properties, tls, runtime);
    match tokio::time::timeout(broker.connect_timeout, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(format!("{address}: {error}")),
        Err(_) => Err(format!("{address}: no answer")),
    }
}
