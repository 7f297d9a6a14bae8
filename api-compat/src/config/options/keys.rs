//! Keys of encrypted volumes: who keeps them, and how this service logs in.

use std::path::PathBuf;

use secrecy::SecretString;

use crate::config::registry::{default, options, unset};
use crate::config::value::choices;

choices! {
    /// Which of a service's addresses in Keystone's catalogue is used.
    pub enum Interface {
        /// For everybody.
        Public = "public",
        /// For the other services of the cloud.
        Internal = "internal",
        /// For administrators.
        Admin = "admin",
    }
}

options! {
    /// Which key manager is used (castellan's `key_manager/__init__.py`, Cinder's `keymgr`).
    pub struct KeyManager in "key_manager" {
        /// Key manager that holds the keys of encrypted volumes: barbican, or
        /// cinder.keymgr.conf_key_mgr.ConfKeyManager for the one of fixed_key. With any other,
        /// encrypted volumes are refused. Must be the same for all services.
        backend: String = default("barbican").formerly(&[
            ("key_manager", "api_class"),
            ("keymgr", "api_class"),
        ]),
        /// The only key of Cinder's ConfKeyManager, in hexadecimal digits. While it is set and the
        /// key manager is barbican, backups that still use it get a key of their own there when
        /// this worker starts; that takes the keystone_authtoken section.
        fixed_key: Option<SecretString> = unset().formerly(&[("keymgr", "fixed_key")]),
    }
}

options! {
    /// How Barbican is reached (castellan's `key_manager/barbican_key_manager.py`).
    pub struct Barbican in "barbican" {
        /// Address of Barbican, as http://localhost:9311/. Unset takes it from Keystone's
        /// catalogue.
        barbican_endpoint: Option<String> = unset(),
        /// Version of Barbican's API. There is only v1.
        barbican_api_version: Option<String> = unset(),
        /// Address of Keystone, for a request that comes without a catalogue.
        auth_endpoint: String = default("http://localhost/identity/v3")
            .formerly(&[("key_manager", "auth_url")]),
        /// Seconds between two attempts to reach a service that is away or fails.
        retry_delay: u64 = default("1"),
        /// Number of attempts after the first.
        number_of_retries: usize = default("60"),
        /// Whether certificates are verified.
        verify_ssl: bool = default("true"),
        /// File with the certificates to verify against. Unset takes the system's.
        verify_ssl_path: Option<PathBuf> = unset(),
        /// Which of the addresses in the catalogue is used.
        barbican_endpoint_type: Interface = default("public"),
        /// Region of the address in the catalogue. Unset takes the first.
        barbican_region_name: Option<String> = unset(),
        /// Whether Barbican also gets a token of this service, so that it accepts a user's that
        /// has expired meanwhile. Takes the barbican_service_user section, or service_user.
        send_service_user_token: bool = default("false"),
    }
}

/// How a service logs in to Keystone (keystoneauth's plugins `password` and
/// `v3applicationcredential`).
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The section that they belong to.
    pub section: &'static str,
    /// The section that says who logs in, if it is another.
    pub auth_section: Option<String>,
    /// What kind they are.
    pub auth_type: Option<String>,
    /// Address of Keystone.
    pub auth_url: Option<String>,
    /// The user's name, unless the id is given.
    pub username: Option<String>,
    /// The user's id.
    pub user_id: Option<String>,
    /// The user's password.
    pub password: Option<SecretString>,
    /// The id of the user's domain.
    pub user_domain_id: Option<String>,
    /// The name of the user's domain.
    pub user_domain_name: Option<String>,
    /// The project's name, unless the id is given.
    pub project_name: Option<String>,
    /// The project's id.
    pub project_id: Option<String>,
    /// The id of the project's domain.
    pub project_domain_id: Option<String>,
    /// The name of the project's domain.
    pub project_domain_name: Option<String>,
    /// The id of the domain of whatever has none of its own.
    pub default_domain_id: Option<String>,
    /// The name of the domain of whatever has none of its own.
    pub default_domain_name: Option<String>,
    /// The id of a domain that the token is for, instead of a project.
    pub domain_id: Option<String>,
    /// The name of a domain that the token is for, instead of a project.
    pub domain_name: Option<String>,
    /// The part of the system that the token is for, instead of a project: all.
    pub system_scope: Option<String>,
    /// The id of a trust that the token is for, instead of a project.
    pub trust_id: Option<String>,
    /// The id of an application credential.
    pub application_credential_id: Option<String>,
    /// The name of an application credential, unless the id is given.
    pub application_credential_name: Option<String>,
    /// The secret of an application credential.
    pub application_credential_secret: Option<SecretString>,
    /// File with the certificates to verify Keystone's against.
    pub cafile: Option<PathBuf>,
    /// File with a certificate to show.
    pub certfile: Option<PathBuf>,
    /// File with the certificate's key, unless that is in the certificate's own.
    pub keyfile: Option<PathBuf>,
    /// Whether Keystone's certificate is not verified.
    pub insecure: bool,
    /// Seconds that Keystone may take to answer.
    pub timeout: Option<f64>,
}

/// The options with which keystoneauth reaches Keystone. `auth_section` does not move them: it is
/// about who logs in.
pub(in crate::config) const OF_SESSION: &[&str] = &[
    "auth_section",
    "cafile",
    "certfile",
    "keyfile",
    "insecure",
    "timeout",
    "send_service_user_token",
];

/// Declares a section with the options of keystoneauth, and what else is in it.
macro_rules! credentials {
    (
        $(#[$doc:meta])*
        pub struct $section:ident in $group:literal {
            $($(#[doc = $help:literal])+ $name:ident: $type:ty = $declaration:expr,)*
        }
    ) => {
        options! {
            $(#[$doc])*
            pub struct $section in $group {
                $($(#[doc = $help])+ $name: $type = $declaration,)*
                /// Another section, of which the options that tell who logs in are read instead.
                auth_section: Option<String> = unset(),
                /// What follows is a password, or v3applicationcredential.
                auth_type: Option<String> = unset().formerly(&[($group, "auth_plugin")]),
                /// Address of Keystone, as http://localhost:5000/v3.
                auth_url: Option<String> = unset(),
                /// Name of the user.
                username: Option<String> = unset().formerly(&[
                    ($group, "user_name"),
                    ($group, "user-name"),
                ]),
                /// Id of the user, instead of the name.
                user_id: Option<String> = unset(),
                /// Password of the user.
                password: Option<SecretString> = unset(),
                /// Id of the user's domain.
                user_domain_id: Option<String> = unset(),
                /// Name of the user's domain.
                user_domain_name: Option<String> = unset(),
                /// Name of the project.
                project_name: Option<String> = unset().formerly(&[
                    ($group, "tenant_name"),
                    ($group, "tenant-name"),
                ]),
                /// Id of the project, instead of the name.
                project_id: Option<String> = unset().formerly(&[
                    ($group, "tenant_id"),
                    ($group, "tenant-id"),
                ]),
                /// Id of the project's domain.
                project_domain_id: Option<String> = unset(),
                /// Name of the project's domain.
                project_domain_name: Option<String> = unset(),
                /// Id of the domain of the user and of the project, where they have none of their own.
                default_domain_id: Option<String> = unset(),
                /// Name of that domain.
                default_domain_name: Option<String> = unset(),
                /// Id of a domain that the token is for, instead of a project.
                domain_id: Option<String> = unset(),
                /// Name of that domain.
                domain_name: Option<String> = unset(),
                /// What of the system the token is for, instead of a project. There is only all.
                system_scope: Option<String> = unset(),
                /// Id of a trust that the token is for, instead of a project.
                trust_id: Option<String> = unset(),
                /// Id of an application credential.
                application_credential_id: Option<String> = unset(),
                /// Name of an application credential of the user, instead of the id.
                application_credential_name: Option<String> = unset(),
                /// Secret of an application credential.
                application_credential_secret: Option<SecretString> = unset(),
                /// File with the certificates to verify Keystone's against. Unset takes the
                /// system's.
                cafile: Option<PathBuf> = unset(),
                /// File with a certificate that Keystone is shown.
                certfile: Option<PathBuf> = unset(),
                /// File with its key. If unset, it is in the file of the certificate.
                keyfile: Option<PathBuf> = unset(),
                /// Whether Keystone's certificate is not verified.
                insecure: bool = default("false"),
                /// Seconds that Keystone may take to answer. Unset gives it a minute.
                timeout: Option<f64> = unset(),
            }
        }

        impl $section {
            /// How to log in.
            #[must_use]
            pub fn credentials(&self) -> Credentials {
                Credentials {
                    section: $group,
                    auth_section: self.auth_section.clone(),
                    auth_type: self.auth_type.clone(),
                    auth_url: self.auth_url.clone(),
                    username: self.username.clone(),
                    user_id: self.user_id.clone(),
                    password: self.password.clone(),
                    user_domain_id: self.user_domain_id.clone(),
                    user_domain_name: self.user_domain_name.clone(),
                    project_name: self.project_name.clone(),
                    project_id: self.project_id.clone(),
                    project_domain_id: self.project_domain_id.clone(),
                    project_domain_name: self.project_domain_name.clone(),
                    default_domain_id: self.default_domain_id.clone(),
                    default_domain_name: self.default_domain_name.clone(),
                    domain_id: self.domain_id.clone(),
                    domain_name: self.domain_name.clone(),
                    system_scope: self.system_scope.clone(),
                    trust_id: self.trust_id.clone(),
                    application_credential_id: self.application_credential_id.clone(),
                    application_credential_name: self.application_credential_name.clone(),
                    application_credential_secret: self.application_credential_secret.clone(),
                    cafile: self.cafile.clone(),
                    certfile: self.certfile.clone(),
                    keyfile: self.keyfile.clone(),
                    insecure: self.insecure,
                    timeout: self.timeout,
                }
            }
        }
    };
}

credentials! {
    /// Who this service is to Barbican beside a user (castellan).
    pub struct BarbicanServiceUser in "barbican_service_user" {}
}

credentials! {
    /// Who this service is beside a user (Cinder's `service_auth.py`).
    pub struct ServiceUser in "service_user" {
        /// Whether Barbican also gets a token of this service, as with send_service_user_token of
        /// the barbican section.
        send_service_user_token: bool = default("false"),
    }
}

credentials! {
    /// Who this service is by itself: deletes keys that a user's token cannot, and moves backups
    /// away from fixed_key.
    pub struct KeystoneAuthtoken in "keystone_authtoken" {}
}
