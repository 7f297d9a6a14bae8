//! Keystone behind TLS: whose certificates count, and what this service shows of itself.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod, SslStream, SslVerifyMode};

use crate::lab::{keystone, log_in, variable};

fn file(name: &str) -> PathBuf {
    PathBuf::from(variable("LAB_DATABASE_TLS")).join(name)
}

/// A port of localhost that speaks TLS for Keystone.
fn secure(verify: SslVerifyMode) -> u16 {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).expect("TLS");
    let (certificate, key) = (file("server.pem"), file("server.key"));
    builder
        .set_certificate_chain_file(certificate)
        .expect("a certificate");
    builder
        .set_private_key_file(key, SslFiletype::PEM)
        .expect("its key");
    builder.set_ca_file(file("ca.pem")).expect("an authority");
    builder.set_verify(verify);
    let acceptor = Arc::new(builder.build());
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let acceptor = acceptor.clone();
            // A client that goes away is what these tests are about.
            thread::spawn(move || acceptor.accept(stream).map(hand_on));
        }
    });
    port
}

/// One request, and its answer up to the end of the connection.
fn hand_on(mut client: SslStream<TcpStream>) -> io::Result<()> {
    let address = keystone();
    let address = address.trim_start_matches("http://").split('/').next();
    let mut keystone = TcpStream::connect(address.unwrap_or_default())?;
    keystone.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut request = Vec::new();
    let mut part = [0; 4096];
    // The body is one line of JSON.
    while !request.ends_with(b"}") {
        let read = client.read(&mut part)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&part[..read]);
    }
    let head = String::from_utf8_lossy(&request).replacen("\r\n", "\r\nConnection: close\r\n", 1);
    keystone.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    keystone.read_to_end(&mut answer)?;
    client.write_all(&answer)?;
    client.shutdown().map_err(io::Error::other)?;
    Ok(())
}

async fn outcome(port: u16, more: &str) -> Result<(), String> {
    let text = format!(
        "[keystone_authtoken]\nauth_type = password\nauth_url = https://localhost:{port}/v3\n\
         username = cinder\npassword = cinder\nproject_name = service\ntimeout = 20\n{more}"
    );
    log_in(&text)
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_verified_as_configured() {
    let port = secure(SslVerifyMode::NONE);
    let cafile = |name| format!("cafile = {}\n", file(name).display());
    assert_eq!(outcome(port, &cafile("ca.pem")).await, Ok(()));
    for unknown in [String::new(), cafile("other-ca.pem")] {
        let refused = outcome(port, &unknown).await.expect_err("nobody knows it");
        assert!(refused.contains("certificate verify failed"), "{refused}");
    }
    assert_eq!(outcome(port, "insecure = true\n").await, Ok(()));
    let missing = outcome(port, "cafile = /nonexistent\n").await;
    let missing = missing.expect_err("there is none");
    assert!(
        missing.starts_with("[keystone_authtoken] cafile: /nonexistent: "),
        "{missing}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn this_service_shows_a_certificate_of_its_own() {
    let port = secure(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    let known = format!("cafile = {}\n", file("ca.pem").display());
    assert!(outcome(port, &known).await.is_err());
    let own = format!(
        "{known}certfile = {}\nkeyfile = {}\n",
        file("client.pem").display(),
        file("client.key").display()
    );
    assert_eq!(outcome(port, &own).await, Ok(()));
    let keyless = format!("{known}certfile = {}\n", file("client.pem").display());
    let missing = outcome(port, &keyless).await.expect_err("there is no key");
    let place = "[keystone_authtoken] certfile: ";
    assert!(
        missing.starts_with(place) && missing.contains("holds no key"),
        "{missing}"
    );
}
