//! Connecting to one of the brokers.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api_compat::config::LoginMethod;
use lapin::types::FrameSize;
use lapin::uri::{
    AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism,
};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use secrecy::ExposeSecret;
use socket2::{SockRef, TcpKeepalive};
use uuid::Uuid;

use super::{Broker, wire};

/// Bytes of the largest frame; longer messages take several. lapin keeps room for 64 frames for each
/// connection, all of which it has touched: with the 128 KiB that RabbitMQ offers those would be 8 MiB.
const FRAME_MAX: FrameSize = 16 << 10;

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
            frame_max: Some(FRAME_MAX),
            ..AMQPQueryString::default()
        },
    };
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connecting = connect(broker, uri, properties);
    match tokio::time::timeout(broker.connect_timeout, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(reason)) => Err(format!("{address}: {reason}")),
        Err(_) => Err(format!("{address}: no answer")),
    }
}

/// Makes the socket here, where giving up closes it, and has lapin do the rest. Left to lapin, both
/// would be in a thread that goes on for as long as a silent host lets it wait.
async fn connect(
    broker: &Broker,
    uri: AMQPUri,
    properties: ConnectionProperties,
) -> Result<Connection, String> {
    let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
    let host = uri.authority.host.clone();
    let addresses = runtime.to_socket_addrs((host.clone(), uri.authority.port));
    let stream = AsyncTcpStream::connect(&runtime, addresses).await;
    let mut stream = stream.map_err(|error| error.to_string())?;
    let socket = match &stream {
        AsyncTcpStream::Plain(stream) => stream.get_ref().as_fd().try_clone_to_owned(),
        _ => Err(io::ErrorKind::Unsupported.into()),
    };
    let socket: TcpStream = socket.map_err(|error| error.to_string())?.into();
    keep_alive(&socket).map_err(|error| error.to_string())?;
    let end = EndOnDrop(Some(socket));
    if let Some(tls) = &broker.tls {
        stream = tls.secure(stream, &host).await?;
    }
    let stream = Mutex::new(Some(stream));
    let take = async move |_, _| {
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        // lapin may ask again when the host hangs up at once.
        let stream = stream.take().ok_or(io::ErrorKind::ConnectionAborted);
        stream.map_err(|kind| io::Error::from(kind).into())
    };
    let connecting = Connection::connector(uri, runtime, take, properties).await;
    let connection = connecting.map_err(|error| error.to_string())?;
    end.keep();
    Ok(connection)
}

/// Has the kernel notice that a silent host is gone, as py-amqp does: heartbeats may be turned off.
fn keep_alive(socket: &TcpStream) -> io::Result<()> {
    let often = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(9);
    SockRef::from(socket).set_tcp_keepalive(&often)
}

/// Ends a connection that nobody waits for any more.
struct EndOnDrop(Option<TcpStream>);

impl EndOnDrop {
    /// Leaves the connection to whoever has it now.
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_host_that_is_gone_is_noticed_after_minutes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        keep_alive(&socket).unwrap();
        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().unwrap());
        let silence = socket.tcp_keepalive_time().unwrap();
        let tries =
            socket.tcp_keepalive_interval().unwrap() * socket.tcp_keepalive_retries().unwrap();
        assert_eq!(silence + tries, Duration::from_secs(150));
    }
}
