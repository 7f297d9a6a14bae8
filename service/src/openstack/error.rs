//! Why a service of the cloud did not do what it was asked for.

use std::path::PathBuf;

use api_compat::secret::SecretError;
use reqwest::StatusCode;

/// Why a request failed. Tenants read the texts: they name ids, and never where a service is, a token, or
/// what is in a secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Nobody asks: the request was made by a service, or its user has no token.
    #[error("The request carries no token of a user.")]
    NoToken,
    /// The catalogue does not name the service.
    #[error("{interface} endpoint for key-manager service not found{}", in_region(.region))]
    NoEndpoint {
        /// The interface that was looked for.
        interface: &'static str,
        /// The region that was looked for.
        region: Option<String>,
    },
    /// There is no such secret.
    #[error("Secret not found.")]
    NotFound,
    /// The service refuses, or fails.
    #[error("{request}: {status}{}", because(.reason))]
    Refused {
        /// Method and path.
        request: String,
        /// The status of the answer.
        status: StatusCode,
        /// What it says.
        reason: String,
    },
    /// The service cannot be reached, or does not answer in time.
    #[error("{request}: {reason}")]
    Away {
        /// Method and path.
        request: String,
        /// Why.
        reason: String,
    },
    /// The service answers something else than it should.
    #[error("{request}: {reason}")]
    Answer {
        /// Method and path.
        request: String,
        /// What is odd.
        reason: String,
    },
    /// A file with certificates cannot be used.
    #[error("{option}: {}: {reason}", .path.display())]
    Certificates {
        /// The option that names it.
        option: String,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A user of this service's own cannot log in with what is configured.
    #[error("[{section}]: {reason}")]
    Credentials {
        /// The section.
        section: String,
        /// Why.
        reason: String,
    },
    /// What was found is no secret that can be copied.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

fn in_region(region: &Option<String>) -> String {
    let region = region.as_deref();
    region.map_or_else(String::new, |region| format!(" in {region} region"))
}

fn because(reason: &str) -> String {
    match reason.is_empty() {
        true => String::new(),
        false => format!(": {reason}"),
    }
}

/// An error with all that is behind it, without the address: that is told beside it.
pub(super) fn causes(error: reqwest::Error) -> String {
    let timed_out = error.is_timeout();
    let error = error.without_url();
    if timed_out {
        return "no answer in time".to_owned();
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
