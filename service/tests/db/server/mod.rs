//! What only a server does: it locks rows, gives transactions up, loses connections, and encrypts them.

mod connection;
mod deadlock;
mod lost;
pub mod meddler;
mod tls;
