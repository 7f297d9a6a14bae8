//! Cinder's database on real servers that hold Cinder 29's schema: the one that `LAB_DATABASE_URL` names,
//! MariaDB, PostgreSQL, or a file of SQLite (`lab sqlite`).
//!
//! Every test has a project of its own, and takes its rows away at its end. The tests in modules that are
//! called `server` need a server, those in `mysql` MariaDB: they are left out with `--skip`. Those in
//! `sqlite` make a file of their own.

mod create;
mod delete;
mod dependents;
mod import;
mod independent;
mod keys;
mod lab;
mod messages;
mod metadata;
mod quota;
mod reads;
mod server;
mod services;
mod sqlite;
mod steps;
