//! Logging in to Keystone with a user of this service's own, and asking it where services are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api_compat::config::Credentials;
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::error::Error;
use super::http::{ANSWER, Http, Own, Request, Retries, Tls, json as decode, odd, set_token};

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
        body(&self.credentials).map_err(|reason| self.unusable(reason))
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

/// What is sent to log in.
fn body(credentials: &Credentials) -> Result<SecretString, &'static str> {
    let auth = match credentials.auth_type.as_deref() {
        None | Some("password" | "v3password") => by_password(credentials)?,
        Some("v3applicationcredential") => by_application(credentials)?,
        Some(_) => return Err("auth_type must be password or v3applicationcredential"),
    };
    Ok(json!({"auth": auth}).to_string().into())
}

fn by_password(credentials: &Credentials) -> Result<Value, &'static str> {
    let password = credentials.password.as_ref().ok_or("password is not set")?;
    let mut user = user(credentials).ok_or("username is not set")?;
    user["password"] = json!(password.expose_secret());
    Ok(json!({
        "identity": {"methods": ["password"], "password": {"user": user}},
        "scope": scope(credentials)?,
    }))
}

fn by_application(credentials: &Credentials) -> Result<Value, &'static str> {
    let secret = credentials.application_credential_secret.as_ref();
    let secret = secret.ok_or("application_credential_secret is not set")?;
    let mut credential = match (
        &credentials.application_credential_id,
        &credentials.application_credential_name,
    ) {
        (Some(id), _) => json!({"id": id}),
        (None, Some(name)) => {
            let user = user(credentials).ok_or("application_credential_name needs username")?;
            json!({"name": name, "user": user})
        }
        (None, None) => return Err("application_credential_id is not set"),
    };
    credential["secret"] = json!(secret.expose_secret());
    Ok(json!({"identity": {
        "methods": ["application_credential"], "application_credential": credential,
    }}))
}

/// What the token is for. An application credential knows it by itself.
fn scope(credentials: &Credentials) -> Result<Value, &'static str> {
    let (id, name) = (&credentials.domain_id, &credentials.domain_name);
    let own_domain = (id.is_some() || name.is_some()).then(|| domain([(id, name)]));
    let scopes = [
        project(credentials).map(|project| json!({"project": project})),
        own_domain.map(|domain| json!({"domain": domain})),
        match credentials.system_scope.as_deref() {
            None => None,
            Some("all") => Some(json!({"system": {"all": true}})),
            Some(_) => return Err("system_scope can only be all"),
        },
        credentials
            .trust_id
            .as_ref()
            .map(|id| json!({"OS-TRUST:trust": {"id": id}})),
    ];
    let mut scopes = scopes.into_iter().flatten();
    let scope = scopes.next().ok_or("project_name is not set")?;
    match scopes.next() {
        Some(_) => Err("set only one of project, domain, system_scope and trust_id"),
        None => Ok(scope),
    }
}

fn user(credentials: &Credentials) -> Option<Value> {
    let domain = domain([
        (&credentials.user_domain_id, &credentials.user_domain_name),
        default_domain(credentials),
    ]);
    named(&credentials.user_id, &credentials.username, domain)
}

fn project(credentials: &Credentials) -> Option<Value> {
    let domain = domain([
        (
            &credentials.project_domain_id,
            &credentials.project_domain_name,
        ),
        default_domain(credentials),
    ]);
    named(&credentials.project_id, &credentials.project_name, domain)
}

fn default_domain(credentials: &Credentials) -> (&Option<String>, &Option<String>) {
    (
        &credentials.default_domain_id,
        &credentials.default_domain_name,
    )
}

/// A user or a project, by its id or by its name in a domain.
fn named(id: &Option<String>, name: &Option<String>, domain: Value) -> Option<Value> {
    match (id, name) {
        (Some(id), _) => Some(json!({"id": id})),
        (None, Some(name)) => Some(json!({"name": name, "domain": domain})),
        (None, None) => None,
    }
}

/// The first domain of which the id or the name is known; otherwise that which Keystone begins with.
fn domain<'a, const N: usize>(known: [(&'a Option<String>, &'a Option<String>); N]) -> Value {
    let known = known.into_iter().find_map(|domain| match domain {
        (Some(id), _) => Some(json!({"id": id})),
        (None, Some(name)) => Some(json!({"name": name})),
        (None, None) => None,
    });
    known.unwrap_or_else(|| json!({"id": "default"}))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::super::peer::{empty, service};
    use super::*;

    fn credentials() -> Credentials {
        Credentials {
            section: "keystone_authtoken",
            auth_section: None,
            auth_type: Some("password".to_owned()),
            auth_url: Some("http://k:5000".to_owned()),
            username: Some("cinder".to_owned()),
            user_id: None,
            password: Some("pass".into()),
            user_domain_id: None,
            user_domain_name: Some("Default".to_owned()),
            project_name: Some("service".to_owned()),
            project_id: None,
            project_domain_id: Some("default".to_owned()),
            project_domain_name: None,
            default_domain_id: None,
            default_domain_name: None,
            domain_id: None,
            domain_name: None,
            system_scope: None,
            trust_id: None,
            application_credential_id: None,
            application_credential_name: None,
            application_credential_secret: None,
            cafile: None,
            certfile: None,
            keyfile: None,
            insecure: false,
            timeout: None,
        }
    }

    fn sent(credentials: &Credentials) -> Result<Value, &'static str> {
        let body = body(credentials)?;
        Ok(serde_json::from_str(body.expose_secret()).unwrap())
    }

    #[test]
    fn a_password_is_sent_for_a_project() {
        let mut credentials = credentials();
        let user = json!({"name": "cinder", "domain": {"name": "Default"}, "password": "pass"});
        let project = json!({"name": "service", "domain": {"id": "default"}});
        let expected = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project},
        }});
        assert_eq!(sent(&credentials), Ok(expected));
        credentials.user_id = Some("u".to_owned());
        credentials.project_id = Some("p".to_owned());
        let body = sent(&credentials).unwrap();
        assert_eq!(body["auth"]["scope"], json!({"project": {"id": "p"}}));
        let user = &body["auth"]["identity"]["password"]["user"];
        assert_eq!(user, &json!({"id": "u", "password": "pass"}));
        assert!(!format!("{credentials:?}").contains("pass\""));
    }

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
    fn an_application_credential_needs_no_project() {
        let credentials = Credentials {
            auth_type: Some("v3applicationcredential".to_owned()),
            application_credential_id: Some("i".to_owned()),
            application_credential_secret: Some("s".into()),
            ..credentials()
        };
        let expected = json!({"auth": {"identity": {
            "methods": ["application_credential"],
            "application_credential": {"id": "i", "secret": "s"},
        }}});
        assert_eq!(sent(&credentials), Ok(expected));
    }

    #[test]
    fn an_application_credential_may_be_named() {
        let mut credentials = Credentials {
            auth_type: Some("v3applicationcredential".to_owned()),
            application_credential_name: Some("n".to_owned()),
            application_credential_secret: Some("s".into()),
            ..credentials()
        };
        let body = sent(&credentials).unwrap();
        let user = json!({"name": "cinder", "domain": {"name": "Default"}});
        let expected = json!({"name": "n", "user": user, "secret": "s"});
        assert_eq!(body["auth"]["identity"]["application_credential"], expected);
        assert!(body["auth"]["scope"].is_null());
        credentials.username = None;
        let missing = "application_credential_name needs username";
        assert_eq!(sent(&credentials).unwrap_err(), missing);
    }

    #[test]
    fn a_domain_may_stand_for_those_of_user_and_project() {
        let credentials = Credentials {
            user_domain_name: None,
            default_domain_name: Some("service".to_owned()),
            ..credentials()
        };
        let body = sent(&credentials).unwrap();
        let user = &body["auth"]["identity"]["password"]["user"];
        assert_eq!(user["domain"], json!({"name": "service"}));
        let project = &body["auth"]["scope"]["project"];
        assert_eq!(project["domain"], json!({"id": "default"}));
        let user = Credentials {
            default_domain_id: Some("d".to_owned()),
            project_domain_id: None,
            ..credentials
        };
        let project = &sent(&user).unwrap()["auth"]["scope"]["project"];
        assert_eq!(project["domain"], json!({"id": "d"}));
    }

    #[test]
    fn a_token_may_be_for_something_else_than_a_project() {
        let scope = |change: fn(&mut Credentials)| {
            let mut credentials = Credentials {
                project_name: None,
                ..credentials()
            };
            change(&mut credentials);
            sent(&credentials).map(|mut body| body["auth"]["scope"].take())
        };
        let all = scope(|c| c.system_scope = Some("all".to_owned()));
        assert_eq!(all, Ok(json!({"system": {"all": true}})));
        let domain = scope(|c| c.domain_name = Some("d".to_owned()));
        assert_eq!(domain, Ok(json!({"domain": {"name": "d"}})));
        let trust = scope(|c| c.trust_id = Some("t".to_owned()));
        assert_eq!(trust, Ok(json!({"OS-TRUST:trust": {"id": "t"}})));
        assert!(scope(|c| c.system_scope = Some("some".to_owned())).is_err());
        let two = scope(|c| {
            c.project_id = Some("p".to_owned());
            c.system_scope = Some("all".to_owned());
        });
        assert!(two.is_err());
    }

    #[test]
    fn what_is_missing_is_named() {
        let without = |change: fn(&mut Credentials)| {
            let mut credentials = credentials();
            change(&mut credentials);
            sent(&credentials).unwrap_err()
        };
        assert_eq!(without(|c| c.password = None), "password is not set");
        assert_eq!(without(|c| c.username = None), "username is not set");
        assert_eq!(
            without(|c| c.project_name = None),
            "project_name is not set"
        );
        let odd = without(|c| c.auth_type = Some("v3kerberos".to_owned()));
        assert_eq!(odd, "auth_type must be password or v3applicationcredential");
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
