//! The cloud's REST APIs that a backup service needs: Keystone, to log in and to find the others,
//! and Barbican. Knows neither backups nor volumes.

mod barbican;
mod error;
mod http;
mod keystone;
mod login_request;
#[cfg(test)]
mod peer;

pub use barbican::{Barbican, Caller, Options};
pub use error::Error;
pub use http::{ANSWER, Http, Own, Retries, Tls};
pub use keystone::{Login, Session};
