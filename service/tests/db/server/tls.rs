//! Connections that are encrypted. The user `secure` is let in through TLS only.

use api_compat::config::database_url::Backend;
use cinderblock::db::{Database, Error};

use crate::lab::{backend, lab_url, options};

/// A file of the lab's certificates.
fn file(name: &str) -> String {
    let folder = std::env::var("LAB_DATABASE_TLS")
        .unwrap_or_else(|_| panic!("LAB_DATABASE_TLS is not set: run `make test`"));
    format!("{folder}/{name}")
}

/// What MySQL's driver calls these words, or what libpq does.
fn words(mysql: &str, libpq: &str) -> String {
    match backend() {
        Backend::Postgres => libpq.replace("{ca}", &file("ca.pem")),
        _ => mysql.replace("{ca}", &file("ca.pem")),
    }
}

/// The whole verification with an authority's certificate.
fn verified(ca: &str) -> String {
    let words = words("ssl_ca=", "sslmode=verify-full&sslrootcert=");
    format!("{words}{}", file(ca))
}

/// Connects as `secure`.
async fn connect(host: &str, words: &str) -> Result<Database, Error> {
    let login = format!("secure:secure@{host}");
    let url = lab_url().replacen("cinder:cinder@127.0.0.1", &login, 1);
    Database::connect(&options(&format!("{url}?{words}"))).await
}

/// Reads something, for which the connection must be of use.
async fn works(database: Database) {
    database.versions().await.expect("query");
}

#[tokio::test]
async fn a_server_with_a_certificate_of_ones_own_authority_is_trusted() {
    let database = connect("localhost", &verified("ca.pem")).await;
    works(database.expect("connect")).await;
}

#[tokio::test]
async fn a_client_may_have_a_certificate() {
    let (certificate, key) = (file("client.pem"), file("client.key"));
    let own = words("ssl_cert={c}&ssl_key={k}", "sslcert={c}&sslkey={k}")
        .replace("{c}", &certificate)
        .replace("{k}", &key);
    let words = format!("{}&{own}", verified("ca.pem"));
    let database = connect("localhost", &words).await;
    works(database.expect("connect")).await;
}

/// A file that goes with its test, made of others.
struct Joined(std::path::PathBuf);

impl Joined {
    fn new(names: &[&str]) -> Self {
        let path = std::env::temp_dir().join(format!("cinderblock-{}.pem", uuid::Uuid::new_v4()));
        let read = |name: &&str| std::fs::read_to_string(file(name)).expect("a certificate");
        let text: String = names.iter().map(read).collect();
        std::fs::write(&path, text).expect("write");
        Self(path)
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        // What is left is temporary, and the test has said what it had to say.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn any_certificate_of_a_file_may_be_the_servers_authority() {
    let words = |file: &Joined| {
        let words = words("ssl_ca=", "sslmode=verify-full&sslrootcert=");
        format!("{words}{}", file.0.display())
    };
    let both = Joined::new(&["other-ca.pem", "ca.pem"]);
    works(connect("localhost", &words(&both)).await.expect("connect")).await;
    let none = Joined::new(&["other-ca.pem", "other-ca.pem"]);
    let refused = connect("localhost", &words(&none)).await;
    let error = refused.err().expect("refused").to_string();
    assert!(error.contains("certificate verify failed"), "{error}");
}

#[tokio::test]
async fn a_file_without_a_certificate_is_refused() {
    let words = |ca: &str| {
        let words = words("ssl_ca=", "sslmode=verify-full&sslrootcert=");
        format!("{words}{ca}")
    };
    for name in ["server.key", "missing.pem"] {
        let refused = connect("localhost", &words(&file(name))).await;
        let error = refused.err().expect("refused").to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[tokio::test]
async fn a_clients_key_may_have_the_older_format() {
    let older = std::env::temp_dir().join(format!("cinderblock-{}.key", uuid::Uuid::new_v4()));
    let made = std::process::Command::new("openssl")
        .args(["ec", "-in", &file("client.key"), "-out"])
        .arg(&older)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{made:?}");
    let older = Joined(older);
    let text = std::fs::read_to_string(&older.0).expect("a key");
    assert!(text.contains("BEGIN EC PRIVATE KEY"));
    let own = words("ssl_cert={c}&ssl_key={k}", "sslcert={c}&sslkey={k}")
        .replace("{c}", &file("client.pem"))
        .replace("{k}", &older.0.display().to_string());
    let words = format!("{}&{own}", verified("ca.pem"));
    let database = connect("localhost", &words).await;
    works(database.expect("connect")).await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let refused = connect("localhost", &verified("other-ca.pem")).await;
    let error = refused.err().expect("refused").to_string();
    assert!(error.contains("certificate verify failed"), "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused_unless_the_name_does_not_count() {
    let refused = connect("127.0.0.1", &verified("ca.pem")).await;
    let error = refused.err().expect("refused").to_string();
    assert!(error.contains("IP address mismatch"), "{error}");
    let nameless = words(
        "ssl_ca={ca}&ssl_check_hostname=false",
        "sslmode=verify-ca&sslrootcert={ca}",
    );
    works(connect("127.0.0.1", &nameless).await.expect("connect")).await;
}

#[tokio::test]
async fn without_a_word_tls_is_used_where_the_server_has_it() {
    works(connect("127.0.0.1", "").await.expect("connect")).await;
}

#[tokio::test]
async fn who_turns_tls_off_is_not_let_in_where_it_is_wanted() {
    let off = words("ssl_disabled=true", "sslmode=disable");
    let refused = connect("127.0.0.1", &off).await;
    assert!(refused.is_err(), "it is let in");
}
