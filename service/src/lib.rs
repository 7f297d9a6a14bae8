//! The `cinder-backup` worker and the engine under it.

pub mod amqp;
pub mod db;
pub mod rbd;
pub mod transfer;
pub mod vault;
