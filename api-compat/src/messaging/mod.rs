//! oslo.messaging 2.0 over RabbitMQ: what lies in a message's body, and which queues there are.
//!
//! A body is inflated first ([`compression`]); all else here starts at the uncompressed JSON text.

#[cfg(test)]
mod any_json;
pub mod compression;
pub mod context;
pub mod envelope;
pub mod failure;
pub mod queue;
pub mod reply;
pub mod request;

pub use context::RequestContext;
pub use envelope::DecodeError;
pub use failure::Failure;
pub use reply::{Answer, Outcome, Reply};
pub use request::{CallIds, Request};
