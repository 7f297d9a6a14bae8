//! Requests with deadlines, and again where a service is away for a moment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backon::{BackoffBuilder, ConstantBuilder};
use openssl::pkey::PKey;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Identity, Method, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tracing::{debug, warn};

use super::error::{Error, causes};

/// How long a service may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a service may take to answer.
pub const ANSWER: Duration = Duration::from_secs(60);

/// The longest text of a refusal that is told.
const REASON: usize = 200;

/// The longest answer that is read, in bytes; the catalogue of a large cloud is a tenth of that.
const LONGEST: usize = 1 << 20;

/// How certificates are verified.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Whether they are.
    pub verify: bool,
    /// Against these instead of the system's, with the option that names the file.
    pub authorities: Option<(String, PathBuf)>,
    /// What this service shows of itself.
    pub own: Option<Own>,
}

/// A certificate of this service's own.
#[derive(Debug, Clone)]
pub struct Own {
    /// The section with `certfile` and `keyfile`.
    pub section: &'static str,
    /// Its file, which may also hold what leads from it to an authority.
    pub certificate: PathBuf,
    /// The file of its key; otherwise that is in the file of the certificate.
    pub key: Option<PathBuf>,
}

impl Own {
    fn identity(&self) -> Result<Identity, Error> {
        let of_no_use = |name: &str, path: &Path, reason: String| Error::Certificates {
            option: format!("[{}] {name}", self.section),
            path: path.to_owned(),
            reason,
        };
        let read = |name: &str, path: &Path| {
            std::fs::read(path).map_err(|error| of_no_use(name, path, error.to_string()))
        };
        let certificate = read("certfile", &self.certificate)?;
        let (name, path) = match &self.key {
            Some(key) => ("keyfile", key),
            None => ("certfile", &self.certificate),
        };
        // OpenSSL would ask at the terminal for the passphrase of a key that has one.
        let key = PKey::private_key_from_pem_callback(&read(name, path)?, |_| Ok(0));
        let key = key.and_then(|key| key.private_key_to_pem_pkcs8());
        let key = key.map_err(|error| of_no_use(name, path, format!("holds no key: {error}")))?;
        Identity::from_pkcs8_pem(&certificate, &key)
            .map_err(|error| of_no_use("certfile", &self.certificate, causes(error)))
    }
}

/// How often and when a request is sent again.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    /// Attempts after the first.
    pub times: usize,
    /// The wait before each.
    pub delay: Duration,
}

/// What may become of a request that is sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// The same as of one.
    Harmless,
    /// Something is made twice: only what certainly was not carried out is sent again.
    Twice,
}

/// A client for one or more services with the same certificates.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client,
    retries: Retries,
}

/// One request.
pub(super) struct Request<'a> {
    pub method: Method,
    pub url: String,
    pub headers: HeaderMap,
    pub body: Option<&'a SecretString>,
    pub repeat: Repeat,
}

impl Request<'_> {
    /// A request without a body.
    pub fn new(method: Method, url: String) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            repeat: Repeat::Harmless,
        }
    }

    /// Whether an answer says that it was carried out. A proxy or a page may have any other status of
    /// success.
    fn is_done(&self, status: StatusCode) -> bool {
        status
            == match self.method {
                Method::POST => StatusCode::CREATED,
                Method::DELETE => StatusCode::NO_CONTENT,
                _ => StatusCode::OK,
            }
    }

    /// How it is called in errors, which tenants read: without where the service is.
    fn name(&self) -> String {
        match Url::parse(&self.url) {
            Ok(url) if url.has_host() => format!("{} {}", self.method, url.path()),
            _ => self.method.to_string(),
        }
    }

    /// Where it goes, for the log.
    fn address(&self) -> String {
        address(&self.url)
    }
}

impl Http {
    /// A client that waits so long for each answer.
    ///
    /// # Errors
    /// `Certificates` where a file cannot be used.
    pub fn new(tls: &Tls, retries: Retries, answer: Duration) -> Result<Self, Error> {
        let mut builder = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(answer)
            // Tokens and keys are for the address that is configured, and for no other.
            .redirect(Policy::none())
            .user_agent(concat!("cinderblock/", env!("CARGO_PKG_VERSION")));
        if let Some(own) = &tls.own {
            builder = builder.identity(own.identity()?);
        }
        if !tls.verify {
            builder = builder.tls_danger_accept_invalid_certs(true);
        } else if let Some((option, path)) = &tls.authorities {
            let of_no_use = |reason: String| Error::Certificates {
                option: option.clone(),
                path: path.clone(),
                reason,
            };
            let pem = std::fs::read(path).map_err(|error| of_no_use(error.to_string()))?;
            let authorities =
                Certificate::from_pem_bundle(&pem).map_err(|error| of_no_use(causes(error)))?;
            if authorities.is_empty() {
                return Err(of_no_use("holds no certificate".to_owned()));
            }
            builder = builder.tls_certs_only(authorities);
        }
        let client = builder.build().map_err(|error| Error::Answer {
            request: "TLS".to_owned(),
            reason: causes(error),
        })?;
        Ok(Self { client, retries })
    }

    /// Sends a request until it is answered, or patience is at its end.
    ///
    /// # Errors
    /// `Refused`, `Away`.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Response, Error> {
        let backoff = ConstantBuilder::new()
            .with_delay(self.retries.delay)
            .with_max_times(self.retries.times);
        let mut waits = backoff.build();
        loop {
            let (error, passing) = match self.try_send(request).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            let address = request.address();
            let Some(wait) = waits.next().filter(|_| passing) else {
                match &error {
                    // It understands what it is asked.
                    Error::Refused { status, .. } if status.is_client_error() => {
                        debug!(address, %error, "A service of the cloud refuses");
                    }
                    error => warn!(address, %error, "A service of the cloud cannot be used"),
                }
                return Err(error);
            };
            debug!(address, %error, "A service of the cloud is asked again");
            tokio::time::sleep(wait).await;
        }
    }

    /// The answer, or an error and whether it may pass by itself.
    async fn try_send(&self, request: &Request<'_>) -> Result<Response, (Error, bool)> {
        let mut builder = self
            .client
            .request(request.method.clone(), &request.url)
            .headers(request.headers.clone());
        if let Some(body) = request.body {
            builder = builder
                .header("Content-Type", "application/json")
                .body(body.expose_secret().to_owned());
        }
        let response = builder.send().await.map_err(|error| {
            // A service that hangs is not waited for again and again.
            let passing = match request.repeat {
                Repeat::Harmless => !error.is_timeout(),
                Repeat::Twice => error.is_connect() && !error.is_timeout(),
            };
            let away = Error::Away {
                request: request.name(),
                reason: causes(error),
            };
            (away, passing)
        })?;
        let status = response.status();
        if request.is_done(status) {
            return Ok(response);
        }
        if status == StatusCode::GATEWAY_TIMEOUT {
            // A proxy has waited for the service that hangs.
            let away = Error::Away {
                request: request.name(),
                reason: status.to_string(),
            };
            return Err((away, false));
        }
        let passing = match request.repeat {
            Repeat::Harmless => status.is_server_error(),
            Repeat::Twice => status == StatusCode::SERVICE_UNAVAILABLE,
        };
        let reason = match response.headers().get(LOCATION) {
            Some(location) if status.is_redirection() => {
                let (from, to) = (request.address(), elsewhere(location));
                warn!(from, to, "A redirection is not followed");
                "it redirects, which is not followed".to_owned()
            }
            _ => reason(&read(response).await.unwrap_or_default()),
        };
        let refused = Error::Refused {
            request: request.name(),
            status,
            reason,
        };
        Err((refused, passing))
    }
}

/// Where a redirection leads.
fn elsewhere(location: &HeaderValue) -> String {
    let to = address(location.to_str().unwrap_or_default());
    to.chars().take(REASON).collect()
}

/// An address without what may be secret in it: user, password, query.
fn address(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) if url.has_host() => {
            format!("{}{}", url.origin().ascii_serialization(), url.path())
        }
        Ok(_) => "an address without a host".to_owned(),
        // The path of a redirection. Anything else may begin with a user and a password.
        Err(_) if url.starts_with('/') && !url.starts_with("//") => {
            url.split(['?', '#']).next().unwrap_or_default().to_owned()
        }
        Err(_) => "an address that cannot be read".to_owned(),
    }
}

/// The body of an answer, unless it is longer than any that is meant.
async fn read(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(causes)? {
        if body.len() + part.len() > LONGEST {
            return Err(format!("the answer is longer than {LONGEST} bytes"));
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// The words in a refusal: Keystone's are in `error.message`, Barbican's in `title` and
/// `description`.
fn reason(text: &[u8]) -> String {
    let Ok(answer) = serde_json::from_slice::<Value>(text) else {
        // A proxy's page says nothing that the status does not.
        return String::new();
    };
    let said = |value: &Value| value.as_str().map(str::to_owned);
    let words = said(&answer["error"]["message"]).or_else(|| {
        let title = said(&answer["title"])?;
        Some(match said(&answer["description"]) {
            Some(description) => format!("{title}: {description}"),
            None => title,
        })
    });
    words.unwrap_or_default().chars().take(REASON).collect()
}

/// Adds a token, which is kept out of debug output.
pub(super) fn set_token(
    headers: &mut HeaderMap,
    name: &'static str,
    token: &SecretString,
) -> Result<(), Error> {
    // What cannot be a header's value is no token.
    let mut value = HeaderValue::from_str(token.expose_secret()).map_err(|_| Error::NoToken)?;
    value.set_sensitive(true);
    headers.insert(HeaderName::from_static(name), value);
    Ok(())
}

/// The body of an answer.
///
/// # Errors
/// `Answer` where it breaks off, or goes on without an end.
pub(super) async fn body(request: &Request<'_>, response: Response) -> Result<Vec<u8>, Error> {
    read(response).await.map_err(|reason| odd(request, &reason))
}

/// Decodes an answer in JSON.
pub(super) async fn json(request: &Request<'_>, response: Response) -> Result<Value, Error> {
    let body = body(request, response).await?;
    serde_json::from_slice(&body).map_err(|error| odd(request, &format!("no JSON: {error}")))
}

/// An answer that is something else than it should.
pub(super) fn odd(request: &Request<'_>, reason: &str) -> Error {
    let address = request.address();
    warn!(
        address,
        reason, "A service of the cloud answers something else than it should"
    );
    Error::Answer {
        request: request.name(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::peer::{empty, service};
    use super::*;

    #[test]
    fn a_refusals_words_are_found() {
        let keystone = r#"{"error": {"code": 401, "message": "The request you have made requires authentication."}}"#;
        assert_eq!(
            reason(keystone.as_bytes()),
            "The request you have made requires authentication."
        );
        let barbican = r#"{"code": 403, "title": "Forbidden", "description": "Secret retrieval attempt not allowed"}"#;
        assert_eq!(
            reason(barbican.as_bytes()),
            "Forbidden: Secret retrieval attempt not allowed"
        );
        assert_eq!(reason(b"<html>Bad Gateway</html>"), "");
        assert_eq!(reason(b"[1]"), "");
        let long = format!(r#"{{"title": "{}"}}"#, "ä".repeat(900));
        assert_eq!(reason(long.as_bytes()).chars().count(), REASON);
    }

    fn http(times: usize) -> Http {
        let tls = Tls {
            verify: true,
            authorities: None,
            own: None,
        };
        let retries = Retries {
            times,
            delay: Duration::ZERO,
        };
        Http::new(&tls, retries, ANSWER).unwrap()
    }

    async fn ask(method: Method, url: String) -> Result<StatusCode, Error> {
        let answered = http(0).send(&Request::new(method, url)).await;
        answered.map(|response| response.status())
    }

    #[tokio::test]
    async fn nobody_else_is_shown_a_token() {
        let (other, asked) = service(empty("200 OK", ""), Duration::ZERO).await;
        let away = other.replace("http://", "http://user:hunter2@");
        for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
            let location = format!("Location: {away}/v3?token=hunter2#hunter2\r\n");
            let (url, _) = service(empty(status, &location), Duration::ZERO).await;
            let error = ask(Method::GET, url).await.unwrap_err().to_string();
            assert!(error.contains("redirects"), "{error}");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        let lead = |to: &str| elsewhere(&HeaderValue::from_str(to).unwrap());
        let to = format!("{away}/v3?token=hunter2#hunter2");
        assert_eq!(lead(&to), format!("{other}/v3"));
        assert_eq!(lead("/login?next=x"), "/login");
        for odd in [
            "http://u:hunter2@h:99999/v3",
            "//u:hunter2@h/v3",
            "u:hunter2@h",
        ] {
            assert!(!lead(odd).contains("hunter2"), "{odd}");
        }
    }

    #[tokio::test]
    async fn errors_do_not_tell_tenants_where_a_service_is() {
        let statuses = [
            "503 Service Unavailable",
            "302 Found",
            "504 Gateway Timeout",
        ];
        let answers = statuses.map(|status| empty(status, "Location: http://10.0.0.1/\r\n"));
        let mut urls = vec!["http://127.0.0.1:1".to_owned(), "http:".to_owned()];
        for answer in answers {
            urls.push(service(answer, Duration::ZERO).await.0);
        }
        for url in urls {
            let secret = url.replace("http://", "http://user:hunter2@");
            let request = Request::new(Method::GET, format!("{secret}/v1/secrets/x?y=hunter2"));
            let error = http(0).send(&request).await.unwrap_err().to_string();
            assert!(error.starts_with("GET"), "{error}");
            for secret in ["127.0.0.1", "10.0.0.1", "hunter2"] {
                assert!(!error.contains(secret), "{error}");
            }
            assert!(request.address().starts_with(&url), "{}", request.address());
            assert!(!request.address().contains("hunter2"));
        }
        let odd = Request::new(Method::GET, "user:hunter2@127.0.0.1".to_owned());
        assert_eq!(odd.name(), "GET");
        assert_eq!(odd.address(), "an address without a host");
    }

    #[tokio::test]
    async fn what_hangs_is_not_waited_for_again_behind_a_proxy_either() {
        for (status, times) in [("503 Service Unavailable", 3), ("504 Gateway Timeout", 1)] {
            let (url, asked) = service(empty(status, ""), Duration::ZERO).await;
            let answered = http(2).send(&Request::new(Method::GET, url)).await;
            assert!(answered.unwrap_err().to_string().contains(status));
            assert_eq!(asked.load(Ordering::Relaxed), times);
        }
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_not_read_to_its_end() {
        for (length, fits) in [(LONGEST - 2, true), (LONGEST - 1, false)] {
            let text = "x".repeat(length);
            let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\"{text}\"");
            let (url, _) = service(answer, Duration::ZERO).await;
            let request = Request::new(Method::GET, url);
            let response = http(0).send(&request).await.unwrap();
            match json(&request, response).await {
                Ok(value) => assert!(fits && value.as_str() == Some(text.as_str())),
                Err(error) => assert!(!fits && error.to_string().contains("longer"), "{error}"),
            }
        }
    }

    #[tokio::test]
    async fn only_its_own_status_says_that_a_request_was_carried_out() {
        for (method, done, other) in [
            (Method::DELETE, "204 No Content", "200 OK"),
            (Method::DELETE, "204 No Content", "202 Accepted"),
            (Method::POST, "201 Created", "200 OK"),
            (Method::GET, "200 OK", "204 No Content"),
        ] {
            let (url, _) = service(empty(done, ""), Duration::ZERO).await;
            ask(method.clone(), url).await.expect(done);
            let (url, _) = service(empty(other, ""), Duration::ZERO).await;
            let error = ask(method, url).await.expect_err(other);
            assert!(error.to_string().contains(other), "{error}");
        }
    }

    #[test]
    fn a_token_does_not_show() {
        let mut headers = HeaderMap::new();
        set_token(&mut headers, "x-auth-token", &"gAAAA".into()).unwrap();
        assert!(!format!("{headers:?}").contains("gAAAA"));
        assert!(matches!(
            set_token(&mut headers, "x-auth-token", &"a\nb".into()),
            Err(Error::NoToken)
        ));
    }
}
