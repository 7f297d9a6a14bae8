//! The methods that we serve, and those of others that we call.

pub mod backup;
pub mod connection;
pub mod outgoing;
pub mod peer;
pub mod scheduler;
pub mod version;
pub mod volume;

pub use backup::{BackupMethod, Refusal};
pub use connection::{ConnectionError, ConnectionInfo, RbdConnection};
pub use outgoing::{Destination, Kind, MessageIds, Outgoing};
