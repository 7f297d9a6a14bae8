//! Logging in to a real Keystone in each way that the configuration can say, and what a service's own
//! token is good for at a real Barbican.

mod lab;
mod logins;
mod service_tokens;
mod tls;
