//! What Keystone is sent to log in: by a password or an application credential, and for what the token
//! is to be.

use api_compat::config::Credentials;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

/// The body of the request.
///
/// # Errors
/// What is missing in the configuration, or does not fit together.
pub(super) fn body(credentials: &Credentials) -> Result<SecretString, &'static str> {
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
pub(super) mod tests {
    use super::*;

    pub fn credentials() -> Credentials {
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
}
