//! A broker behind TLS that knows its clients by their certificates.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use api_compat::config::{LoginMethod, TransportUrl};
use api_compat::messaging::queue::QueueOptions;
use api_compat::rpc::Kind;
use cinderblock::amqp::{Amqp, Broker, Certificates, Options, Tls};
use serde_json::json;
use tokio::time::Instant;

use crate::lab::{
    HOST_QUEUE, Lab, amqp, answer, broker, context, eventually, request, serve, variable,
};

/// A file of the lab's.
fn file(name: &str) -> PathBuf {
    PathBuf::from(variable("LAB_RABBIT_TLS")).join(name)
}

/// What fits the lab's broker.
fn fitting() -> Certificates {
    Certificates {
        authorities: Some(file("ca.pem")),
        own: Some(file("client.pem")),
        key: Some(file("client.key")),
        any_name: false,
    }
}

fn tls_broker(lab: &Lab, host: &str, certificates: &Certificates) -> Broker {
    let url = variable("LAB_AMQPS_URL").replace("localhost", host);
    let url = format!("{}/{}", url.trim_end_matches('/'), lab.vhost);
    at(TransportUrl::parse(&url).expect("a URL"), certificates)
}

fn at(url: TransportUrl, certificates: &Certificates) -> Broker {
    let mut broker = Arc::into_inner(broker(url)).expect("ours alone");
    broker.tls = Some(Tls::new(certificates).expect("usable files"));
    broker
}

fn reaching(lab: &Lab, broker: Broker) -> Amqp {
    amqp(Options {
        broker: Arc::new(broker),
        ..lab.options(QueueOptions::default())
    })
}

fn secure(lab: &Lab, host: &str, certificates: &Certificates) -> Amqp {
    reaching(lab, tls_broker(lab, host, certificates))
}

/// Why nothing can be sent.
async fn refusal(ours: &Amqp) -> String {
    let context = context();
    eventually("a reason", async || {
        let deadline = Instant::now() + Duration::from_secs(5);
        let cast = request(Kind::Cast, HOST_QUEUE, "m");
        let sent = ours.cast_before(cast, &context, deadline).await;
        let reason = format!("{:?}", sent.expect_err("it is refused"));
        // Then the first try to connect still goes on.
        (!reason.contains("no confirmation in time")).then_some(reason)
    })
    .await
}

#[tokio::test]
async fn requests_and_answers_go_through_tls() {
    let lab = Lab::new().await;
    let ours = secure(&lab, "localhost", &fitting());
    let mut server = serve(&ours).await;
    let context = context();
    let long = "x".repeat(1 << 20);
    let call = ours.call(request(Kind::Call, HOST_QUEUE, "m"), &context);
    let (outcome, _) = tokio::join!(call, answer(&mut server, json!(long)));
    assert_eq!(outcome.expect("answered"), long);
}

/// `rabbit_login_method = EXTERNAL`: the certificate's name is that of the user.
#[tokio::test]
async fn the_certificate_logs_in() {
    let lab = Lab::new().await;
    let user = json!({"password_hash": "", "tags": ""});
    lab.put("users/client", user).await;
    let everything = json!({"configure": ".*", "write": ".*", "read": ".*"});
    lab.put(&format!("permissions/{}/client", lab.vhost), everything)
        .await;
    let mut broker = tls_broker(&lab, "localhost", &fitting());
    broker.login = LoginMethod::External;
    broker.url.hosts[0].user = "nobody".to_owned();
    let ours = reaching(&lab, broker);
    serve(&ours).await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let lab = Lab::new().await;
    let said = refusal(&secure(&lab, "127.0.0.1", &fitting())).await;
    assert!(
        said.contains("its certificate is refused: IP address mismatch"),
        "{said}"
    );
    assert!(said.contains("ssl_enforce_hostname_verification"), "{said}");
}

/// `ssl_enforce_hostname_verification = false`.
#[tokio::test]
async fn a_certificate_for_another_name_is_accepted_where_the_operator_says_so() {
    let lab = Lab::new().await;
    let any_name = Certificates {
        any_name: true,
        ..fitting()
    };
    serve(&secure(&lab, "127.0.0.1", &any_name)).await;
    let others = Certificates {
        authorities: Some(file("other-ca.pem")),
        ..any_name
    };
    for host in ["127.0.0.1", "localhost"] {
        let said = refusal(&secure(&lab, host, &others)).await;
        assert!(said.contains("its certificate is refused"), "{said}");
        assert!(
            said.contains("see [oslo_messaging_rabbit] ssl_ca_file"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn what_to_do_without_an_authority_is_told() {
    let lab = Lab::new().await;
    let system = Certificates {
        authorities: None,
        any_name: true,
        ..fitting()
    };
    let said = refusal(&secure(&lab, "localhost", &system)).await;
    assert!(said.contains("ssl_ca_file is not set"), "{said}");
}

#[tokio::test]
async fn the_client_shows_its_certificate() {
    let lab = Lab::new().await;
    let nobody = Certificates {
        own: None,
        key: None,
        ..fitting()
    };
    refusal(&secure(&lab, "localhost", &nobody)).await;
}

#[tokio::test]
async fn a_port_without_tls_is_suspected() {
    let lab = Lab::new().await;
    let said = refusal(&reaching(&lab, at(lab.transport_url(), &fitting()))).await;
    assert!(said.contains("does this port speak TLS?"), "{said}");
}

/// OpenSSL takes the system's authorities from the environment, which is another process's.
#[test]
fn only_the_given_authorities_are_trusted() {
    let test = "tls::although_the_system_trusts_the_broker";
    let inner = Command::new(std::env::current_exe().expect("this program"))
        .args(["--ignored", "--exact", test])
        .env("SSL_CERT_FILE", file("ca.pem"))
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&inner.stdout);
    assert!(
        inner.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

#[tokio::test]
#[ignore = "only_the_given_authorities_are_trusted runs it"]
async fn although_the_system_trusts_the_broker() {
    let lab = Lab::new().await;
    let system = Certificates {
        authorities: None,
        ..fitting()
    };
    serve(&secure(&lab, "localhost", &system)).await;
    let others = Certificates {
        authorities: Some(file("client.pem")),
        ..fitting()
    };
    let said = refusal(&secure(&lab, "localhost", &others)).await;
    assert!(said.contains("its certificate is refused"), "{said}");
}

#[test]
fn files_of_no_use_are_named() {
    let folder = std::env::temp_dir().join(format!("cinderblock-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let write = |name: &str, parts: &[&str]| {
        let parts = parts
            .iter()
            .map(|part| std::fs::read(file(part)).expect("a file"));
        let path = folder.join(name);
        std::fs::write(&path, parts.collect::<Vec<_>>().concat()).expect("a file");
        path
    };
    let both = write("both.pem", &["client.pem", "client.key"]);
    let empty = write("empty.pem", &[]);
    let complaint = |certificates| match Tls::new(&certificates) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    let none = Certificates::default();
    let cases = [
        (fitting(), ""),
        (
            Certificates {
                own: Some(both),
                key: None,
                ..none.clone()
            },
            "",
        ),
        (
            Certificates {
                authorities: Some("/nonexistent".into()),
                ..none.clone()
            },
            "ssl_ca_file: /nonexistent: No such file",
        ),
        (
            Certificates {
                authorities: Some(empty.clone()),
                ..none.clone()
            },
            "empty.pem: holds no certificate",
        ),
        (
            Certificates {
                own: Some(empty),
                ..fitting()
            },
            "ssl_cert_file: ",
        ),
        (
            Certificates {
                key: None,
                ..fitting()
            },
            "client.pem: holds no key for the certificate",
        ),
        (
            Certificates {
                key: Some(file("server.key")),
                ..fitting()
            },
            "ssl_key_file: ",
        ),
        (
            Certificates {
                own: None,
                ..fitting()
            },
            "without ssl_cert_file",
        ),
    ];
    for (certificates, expected) in cases {
        let shown = format!("{certificates:?}");
        let said = complaint(certificates);
        assert!(
            said.contains(expected) && said.is_empty() == expected.is_empty(),
            "{shown}: {said}"
        );
    }
    std::fs::remove_dir_all(&folder).expect("removed");
}
