//! What the end-to-end tests share: the lab's cloud, seen from outside.
//!
//! Everything is asked of the running parts: Cinder's REST API, the `openstack` client, the `rbd`
//! command, the database. Nothing is asked of the worker.

mod barbican;
mod broker;
mod ceph;
mod chain;
mod cloud;
mod content;
mod database;
mod files;
mod invariants;
mod lab;
mod patience;
mod setup;

pub use barbican::Barbican;
pub use broker::{Addressed, Broker, Overheard, backup_object};
pub use ceph::{Cluster, image};
pub use chain::Chain;
pub use cloud::{Cloud, Resource};
pub use content::Content;
pub use database::Database;
pub use files::Files;
pub use invariants::Invariants;
pub use lab::{Lab, Reconfigured, run};
pub use patience::eventually;
pub use setup::Setup;
