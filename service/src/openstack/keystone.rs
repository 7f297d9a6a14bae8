//! Logging in to Keystone with a user of this service's own, and asking it where services are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api_compat::config::Credentials;
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::Mutex;

use super::error::Error;
use super::http::{ANSWER, Http, Own, Request, Retries, Tls, json as decode, odd, set_token};
use super::login_request;

/// How long before its end a token is not used any more.
const MARGIN: TimeDelta = TimeDelta::minutes(2);

/// A token of this service's own, and what came with it.
#[derive(Debug)]
pub struct Session {
    /// The token.
    pub token: SecretString,
    /// The catalogue, as `api_compat::service_catalog` reads it.
    pub catalog: Vec<Value>,
    expires: DateTime<Utc>,
}

/// A user of this service's own.
#[derive(Debug)]
pub struct Login {
    credentials: Credentials,
    retries: Retries,
    last: Mutex<Last>,
}

/// What came of the last try to log in.
#[derive(Debug, Default)]
enum Last {
    #[default]
    Untried,
    In(Arc<Session>),
    Failed {
        at: Instant,
        error: Error,
    },
}

impl Login {
    /// A user, if the section says who that is.
    pub fn new(credentials: Credentials, retries: Retries) -> Option<Self> {
        credentials.auth_url.as_ref()?;
        Some(Self {
            credentials,
            retries,
            last: Mutex::default(),
        })
    }

    /// Where Keystone is.
    pub fn url(&self) -> &str {
        self.credentials.auth_url.as_deref().unwrap_or_default()
    }

    /// Whether enough is known to log in with.
    ///
    /// # Errors
    /// `Credentials` with what is missing, `Certificates` with what cannot be read.
    pub fn check(&self) -> Result<(), Error> {
        self.body()?;
        self.http()?;
        Ok(())
    }

    fn body(&self) -> Result<SecretString, Error> {
        login_request::body(&self.credentials).map_err(|reason| self.unusable(reason))
    }

    fn unusable(&self, reason: &str) -> Error {
        let section = self.credentials.section;
        Error::Credentials {
            section: self
                .credentials
                .auth_section
                .as_deref()
                .unwrap_or(section)
                .to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn http(&self) -> Result<Http, Error> {
        let section = self.credentials.section;
        let file = self.credentials.cafile.clone();
        let certificate = self.credentials.certfile.clone();
        let tls = Tls {
            verify: !self.credentials.insecure,
            authorities: file.map(|path| (format!("[{section}] cafile"), path)),
            own: certificate.map(|certificate| Own {
                section,
                certificate,
                key: self.credentials.keyfile.clone(),
            }),
        };
        let answer = match self.credentials.timeout {
            None => ANSWER,
            Some(seconds) => Duration::try_from_secs_f64(seconds)
                .ok()
                .filter(|timeout| !timeout.is_zero())
                .ok_or_else(|| self.unusable("timeout must be above 0"))?,
        };
        Http::new(&tls, self.retries, answer)
    }

    /// A token that is good for a while: the last one, or a new one.
    ///
    /// # Errors
    /// `Credentials` where some are missing; what Keystone answers. Whoever waited while another one
    /// tried in vain gets its error: with many in line each would add the time that Keystone has for
    /// its answer.
    pub async fn session(&self) -> Result<Arc<Session>, Error> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        match &*last {
            Last::In(session) if Utc::now() < session.expires - MARGIN => {
                return Ok(session.clone());
            }
            Last::Failed { at, error } if *at > asked => return Err(error.clone()),
            _ => {}
        }
        let session = self.log_in().await.map(Arc::new);
        *last = match &session {
            Ok(session) => Last::In(session.clone()),
            Err(error) => Last::Failed {
                at: Instant::now(),
                error: error.clone(),
            },
        };
        session
    }

    /// Forgets a token that was not accepted.
    pub async fn forget(&self, refused: &Arc<Session>) {
        let mut last = self.last.lock().await;
        if matches!(&*last, Last::In(session) if Arc::ptr_eq(session, refused)) {
            *last = Last::Untried;
        }
    }

    async fn log_in(&self) -> Result<Session, Error> {
        let body = self.body()?;
        let http = self.http()?;
        let url = format!("{}/auth/tokens", version_3(self.url()));
        let request = Request {
            body: Some(&body),
            ..Request::new(Method::POST, url)
        };
        let response = http.send(&request).await?;
        let token = response.headers().get("X-Subject-Token");
        let token = token.and_then(|token| token.to_str().ok());
        let token: SecretString = token
            .ok_or_else(|| odd(&request, "the answer has no token"))?
            .into();
        let answer = decode(&request, response).await?;
        let expires = answer["token"]["expires_at"].as_str();
        let expires = expires.and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        Ok(Session {
            token,
            catalog: list(&answer["token"]["catalog"]),
            expires: expires
                .ok_or_else(|| odd(&request, "the token has no end"))?
                .to_utc(),
        })
    }
}

/// The catalogue that goes with a user's token.
pub(super) async fn catalog(
    http: &Http,
    keystone: &str,
    token: &SecretString,
) -> Result<Vec<Value>, Error> {
    let url = format!("{}/auth/catalog", version_3(keystone));
    let mut request = Request::new(Method::GET, url);
    set_token(&mut request.headers, "x-auth-token", token)?;
    let response = http.send(&request).await?;
    Ok(list(&decode(&request, response).await?["catalog"]))
}

fn list(catalog: &Value) -> Vec<Value> {
    catalog.as_array().cloned().unwrap_or_default()
}

/// Keystone's address with the version of its API, which may be missing or an older one.
fn version_3(url: &str) -> String {
    let url = url.trim_end_matches('/');
    let bare = url.strip_suffix("/v2.0").or(url.strip_suffix("/v3"));
    format!("{}/v3", bare.unwrap_or(url))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::super::login_request::tests::credentials;
    use super::super::peer::{empty, service};
    use super::*;

    #[tokio::test]
    async fn many_that_wait_for_keystone_share_its_failure() {
        let answer = empty("503 Service Unavailable", "");
        let (url, asked) = service(answer, Duration::from_millis(200)).await;
        let credentials = Credentials {
            auth_url: Some(url),
            ..credentials()
        };
        let retries = Retries {
            times: 0,
            delay: Duration::ZERO,
        };
        let login = Login::new(credentials, retries).unwrap();
        for times in [1, 2] {
            let sessions = join_all((0..20).map(|_| login.session())).await;
            assert!(sessions.iter().all(Result::is_err));
            // Who asks later has another answer.
            assert_eq!(asked.load(Ordering::Relaxed), times);
        }
    }

    #[test]
    fn the_version_is_added_where_it_is_missing() {
        for url in [
            "http://k:5000",
            "http://k:5000/",
            "http://k:5000/v3/",
            "http://k:5000/v2.0",
        ] {
            assert_eq!(version_3(url), "http://k:5000/v3");
        }
        assert_eq!(version_3("http://k/identity"), "http://k/identity/v3");
    }
}
