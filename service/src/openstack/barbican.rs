//! Barbican's API, as castellan and python-barbicanclient use it.

use std::sync::Arc;

use api_compat::config::Interface;
use api_compat::messaging::RequestContext;
use api_compat::secret::{self, Description};
use api_compat::service_catalog;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use secrecy::{SecretSlice, SecretString};
use serde_json::Value;
use tracing::warn;
use uuid::Uuid;

use super::error::Error;
use super::http::{Http, Repeat, Request, body, json, odd, set_token};
use super::keystone::{self, Login, Session};

const SERVICE: &str = "key-manager";

/// Where Barbican is, as far as that is configured.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its address; otherwise that of Keystone's catalogue.
    pub endpoint: Option<String>,
    /// Which address of the catalogue.
    pub interface: Interface,
    /// In which region.
    pub region: Option<String>,
    /// Where Keystone is, for a request without a catalogue.
    pub keystone: String,
}

/// Who asks for something.
#[derive(Clone, Copy)]
pub enum Caller<'a> {
    /// The user of a request.
    User(&'a RequestContext),
    /// This service itself.
    Service(&'a Login),
}

/// A client of Barbican.
#[derive(Debug)]
pub struct Barbican {
    http: Http,
    options: Options,
    /// Whose token goes with a user's, which may have expired.
    beside: Option<Login>,
}

/// An address, and the headers that open it.
struct Access {
    base: String,
    headers: HeaderMap,
    /// This service's own token among them, and whose it is.
    own: Option<Arc<Session>>,
}

impl Barbican {
    /// A client.
    pub fn new(http: Http, options: Options, beside: Option<Login>) -> Self {
        Self {
            http,
            options,
            beside,
        }
    }

    /// What a secret is, and what is in it.
    ///
    /// # Errors
    /// `NotFound`; `Secret` if it has no content.
    pub async fn get(
        &self,
        caller: Caller<'_>,
        id: Uuid,
    ) -> Result<(Description, SecretSlice<u8>), Error> {
        let path = format!("secrets/{id}");
        let (request, response) = self.ask(caller, Method::GET, &path, None).await?;
        let description = Description::from_answer(&json(&request, response).await?)?;
        let path = format!("{path}/payload");
        let accept = Some(Body::Accept(description.content_type()));
        let (request, response) = self.ask(caller, Method::GET, &path, accept).await?;
        let payload = body(&request, response).await?;
        Ok((description, payload.into()))
    }

    /// Stores a secret, the body being that of `api_compat::secret`; its id.
    ///
    /// # Errors
    /// What Barbican answers.
    pub async fn store(&self, caller: Caller<'_>, body: &SecretString) -> Result<Uuid, Error> {
        let body = Some(Body::Json(body));
        let (request, response) = self.ask(caller, Method::POST, "secrets/", body).await?;
        let answer = json(&request, response).await?;
        let reference = answer["secret_ref"].as_str();
        let reference = reference.ok_or_else(|| odd(&request, "the answer names no secret"))?;
        Ok(secret::id(reference)?)
    }

    /// Deletes a secret.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete(&self, caller: Caller<'_>, id: Uuid) -> Result<(), Error> {
        let path = format!("secrets/{id}");
        self.ask(caller, Method::DELETE, &path, None).await?;
        Ok(())
    }

    /// Lets a user read a secret of this service's own project.
    ///
    /// # Errors
    /// What Barbican answers.
    pub async fn let_read(&self, caller: Caller<'_>, id: Uuid, user: &str) -> Result<(), Error> {
        let body = secret::readable_by(user).to_string().into();
        let path = format!("secrets/{id}/acl");
        let body = Some(Body::Json(&body));
        self.ask(caller, Method::PUT, &path, body).await?;
        Ok(())
    }

    /// Sends a request; again with a new token where this service's own was not accepted.
    async fn ask<'a>(
        &self,
        caller: Caller<'_>,
        method: Method,
        path: &str,
        body: Option<Body<'a>>,
    ) -> Result<(Request<'a>, reqwest::Response), Error> {
        let mut renewed = false;
        loop {
            let access = self.access(caller).await?;
            let request = access.request(method.clone(), path, body);
            match self.http.send(&request).await {
                Ok(response) => return Ok((request, response)),
                Err(error) => {
                    let login = match caller {
                        Caller::User(_) => self.beside.as_ref(),
                        Caller::Service(login) => Some(login),
                    };
                    match (login, &access.own) {
                        (Some(login), Some(own)) if !renewed && is_unauthorised(&error) => {
                            login.forget(own).await;
                            renewed = true;
                        }
                        _ => return Err(of_barbican(error)),
                    }
                }
            }
        }
    }

    async fn access(&self, caller: Caller<'_>) -> Result<Access, Error> {
        match caller {
            Caller::User(context) => self.as_user(context).await,
            Caller::Service(login) => self.as_service(login).await,
        }
    }

    async fn as_user(&self, context: &RequestContext) -> Result<Access, Error> {
        let token = context.auth_token().ok_or(Error::NoToken)?;
        let mut headers = HeaderMap::new();
        set_token(&mut headers, "x-auth-token", &token)?;
        let own = match &self.beside {
            // Without it, a user's token that has not expired is as good.
            Some(login) => login
                .session()
                .await
                .inspect_err(|error| warn!(%error, "Cannot log in beside the user"))
                .ok(),
            None => None,
        };
        if let Some(own) = &own {
            set_token(&mut headers, "x-service-token", &own.token)?;
        }
        let base = match self.endpoint(context.service_catalog()) {
            Ok(base) => base,
            Err(_) => {
                let keystone = self.keystone(context.service_catalog());
                self.endpoint(&keystone::catalog(&self.http, keystone, &token).await?)?
            }
        };
        Ok(Access { base, headers, own })
    }

    async fn as_service(&self, login: &Login) -> Result<Access, Error> {
        let session = login.session().await?;
        let mut headers = HeaderMap::new();
        set_token(&mut headers, "x-auth-token", &session.token)?;
        Ok(Access {
            base: self.endpoint(&session.catalog)?,
            headers,
            own: Some(session),
        })
    }

    /// The address of Barbican's API.
    fn endpoint(&self, catalog: &[Value]) -> Result<String, Error> {
        let options = &self.options;
        let (interface, region) = (options.interface, options.region.as_deref());
        let found = match &options.endpoint {
            Some(endpoint) => Some(endpoint.as_str()),
            None => service_catalog::endpoint(catalog, SERVICE, interface, region),
        };
        found.map(version_1).ok_or_else(|| Error::NoEndpoint {
            interface: interface.as_str(),
            region: options.region.clone(),
        })
    }

    /// Where to ask for a catalogue with Barbican in it.
    fn keystone<'a>(&'a self, catalog: &'a [Value]) -> &'a str {
        let (interface, region) = (self.options.interface, self.options.region.as_deref());
        service_catalog::endpoint(catalog, "identity", interface, region)
            .unwrap_or(&self.options.keystone)
    }
}

/// What goes with a request.
#[derive(Clone, Copy)]
enum Body<'a> {
    /// A body in JSON.
    Json(&'a SecretString),
    /// Nothing; an answer of this type is wanted.
    Accept(&'a str),
}

impl Access {
    fn request<'a>(&self, method: Method, path: &str, body: Option<Body<'a>>) -> Request<'a> {
        let repeat = match method == Method::POST {
            true => Repeat::Twice,
            false => Repeat::Harmless,
        };
        let mut request = Request {
            headers: self.headers.clone(),
            repeat,
            ..Request::new(method, format!("{}{path}", self.base))
        };
        let accept = match body {
            Some(Body::Accept(kind)) => HeaderValue::from_str(kind).ok(),
            _ => None,
        };
        let json = HeaderValue::from_static("application/json");
        request.headers.insert(ACCEPT, accept.unwrap_or(json));
        if let Some(Body::Json(body)) = body {
            request.body = Some(body);
        }
        request
    }
}

/// That there is no such secret must be in Barbican's own words: a proxy that knows no Barbican does
/// not know of secrets either.
fn of_barbican(error: Error) -> Error {
    match error {
        Error::Refused { status, reason, .. }
            if status == StatusCode::NOT_FOUND && reason.starts_with("Not Found: Secret") =>
        {
            Error::NotFound
        }
        error => error,
    }
}

fn is_unauthorised(error: &Error) -> bool {
    matches!(error, Error::Refused { status, .. } if *status == StatusCode::UNAUTHORIZED)
}

/// The address with the version of the API, which a catalogue names or leaves out.
fn version_1(url: &str) -> String {
    let url = url.trim_end_matches('/');
    format!("{}/v1/", url.strip_suffix("/v1").unwrap_or(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_barbican_says_that_a_secret_is_gone() {
        let refused = |status, reason: &str| Error::Refused {
            request: "GET http://b/v1/secrets/x".to_owned(),
            status,
            reason: reason.to_owned(),
        };
        let gone = "Not Found: Secret not found.";
        let heard = |status, reason| of_barbican(refused(status, reason));
        assert!(matches!(
            heard(StatusCode::NOT_FOUND, gone),
            Error::NotFound
        ));
        for (status, reason) in [
            (StatusCode::NOT_FOUND, ""),
            (StatusCode::NOT_FOUND, "Not Found: "),
            (StatusCode::FORBIDDEN, gone),
        ] {
            assert!(matches!(heard(status, reason), Error::Refused { .. }));
        }
    }

    #[test]
    fn the_version_is_added_where_it_is_missing() {
        for url in [
            "http://b:9311",
            "http://b:9311/",
            "http://b:9311/v1",
            "http://b:9311/v1/",
        ] {
            assert_eq!(version_1(url), "http://b:9311/v1/");
        }
        assert_eq!(
            version_1("http://b/key-manager"),
            "http://b/key-manager/v1/"
        );
    }
}
