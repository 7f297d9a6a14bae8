//! Cinder's database on a real MariaDB that holds Cinder 29's schema.
//!
//! Every test has a project of its own, and takes its rows away at its end.

mod connection;
mod create;
mod deadlock;
mod delete;
mod dependents;
mod import;
mod lab;
mod lost;
mod meddler;
mod messages;
mod metadata;
mod quota;
mod reads;
mod services;
mod steps;
