//! The `cinder-backup` worker and the engine under it.

pub mod amqp;
pub mod attach;
pub mod db;
pub mod keys;
pub mod manager;
pub mod openstack;
mod outage;
pub mod rbd;
pub mod transfer;
pub mod vault;
pub mod worker;
