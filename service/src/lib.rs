//! The `cinder-backup` worker, the operator's tool, and the engine under both.

pub mod amqp;
pub mod attach;
pub mod cli;
mod core_dumps;
pub mod db;
pub mod keys;
pub mod manager;
pub mod openstack;
mod outage;
pub mod rbd;
mod settings;
mod steps;
pub mod transfer;
mod turns;
pub mod vault;
pub mod worker;
