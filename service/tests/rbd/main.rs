//! librbd and RADOS on a real cluster.

#[path = "../ceph_lab/mod.rs"]
mod ceph_lab;
mod closing;
mod cluster;
mod diffs;
mod dropping;
mod faults;
mod images;
mod objects;
mod owning;

use cinderblock::rbd::{ErrorKind, Result};

fn kind<T: std::fmt::Debug>(outcome: Result<T>) -> ErrorKind {
    outcome.expect_err("this must fail").kind()
}
