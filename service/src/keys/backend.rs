//! From the configuration to the key manager.

use api_compat::config::{Config, Credentials, seconds};
use tracing::warn;

use crate::openstack::{ANSWER, Barbican, Http, Login, Options, Retries, Tls};

/// What kind of key manager a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Barbican,
    Fixed,
    Unknown,
}

/// Tells them apart by the last part of their name, as Cinder does: it may be castellan's short one,
/// or a class of castellan or of an older Cinder.
pub(super) fn kind(backend: &str) -> Kind {
    match backend.rsplit('.').next() {
        Some("barbican" | "BarbicanKeyManager") => Kind::Barbican,
        Some("ConfKeyManager") => Kind::Fixed,
        _ => Kind::Unknown,
    }
}

/// A client of Barbican, or why there can be none.
pub(super) fn barbican(config: &Config) -> Result<Barbican, String> {
    let options = &config.barbican;
    let version = options.barbican_api_version.as_deref();
    if let Some(version) = version.filter(|version| *version != "v1") {
        return Err(format!(
            "[barbican] barbican_api_version: there is no {version}, only v1"
        ));
    }
    let path = options.verify_ssl_path.clone();
    let tls = Tls {
        verify: options.verify_ssl,
        authorities: path.map(|path| ("[barbican] verify_ssl_path".to_owned(), path)),
        own: None,
    };
    let http = Http::new(&tls, retries(config), ANSWER).map_err(|error| error.to_string())?;
    let place = Options {
        endpoint: options.barbican_endpoint.clone(),
        interface: options.barbican_endpoint_type,
        region: options.barbican_region_name.clone(),
        keystone: options.auth_endpoint.clone(),
    };
    Ok(Barbican::new(http, place, beside(config)?))
}

/// Whose token goes with a user's, if anybody's.
fn beside(config: &Config) -> Result<Option<Login>, String> {
    let wanted = config.barbican.send_service_user_token;
    if !wanted && !config.service_user.send_service_user_token {
        return Ok(None);
    }
    let retries = retries(config);
    let barbicans = user(config.barbican_service_user.credentials(), retries);
    let login = barbicans.or_else(|| user(config.service_user.credentials(), retries));
    match login {
        None if wanted => Err(
            "[barbican] send_service_user_token needs auth_url and more in [barbican_service_user]"
                .to_owned(),
        ),
        login => Ok(login),
    }
}

/// The user of a section, if it says who that is. What is wrong with it is told at once, not with the
/// first key.
pub(super) fn user(credentials: Credentials, retries: Retries) -> Option<Login> {
    const CANNOT: &str = "This service cannot log in to Keystone";
    let section = credentials.section;
    let begun = credentials.auth_section.is_some() || credentials.auth_type.is_some();
    let login = Login::new(credentials, retries);
    match &login {
        None if begun => warn!(section, error = "auth_url is not set", "{CANNOT}"),
        None => {}
        Some(login) => {
            if let Err(error) = login.check() {
                warn!(section, %error, "{CANNOT}");
            }
        }
    }
    login
}

/// How often Keystone and Barbican are asked.
pub(super) fn retries(config: &Config) -> Retries {
    Retries {
        times: config.barbican.number_of_retries,
        delay: seconds(config.barbican.retry_delay),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_managers_have_many_names() {
        for name in [
            "barbican",
            "castellan.key_manager.barbican_key_manager.BarbicanKeyManager",
            "cinder.keymgr.barbican.BarbicanKeyManager",
        ] {
            assert_eq!(kind(name), Kind::Barbican, "{name}");
        }
        assert_eq!(
            kind("cinder.keymgr.conf_key_mgr.ConfKeyManager"),
            Kind::Fixed
        );
        for name in [
            "vault",
            "",
            "castellan.key_manager.vault_key_manager.VaultKeyManager",
        ] {
            assert_eq!(kind(name), Kind::Unknown, "{name}");
        }
    }
}
