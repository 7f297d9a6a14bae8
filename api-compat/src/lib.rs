//! What OpenStack expects of a backup service, bit for bit.
//!
//! Everything here is pure: bytes, strings and values in; values, bytes and refusals out. There
//! is no socket, no database, no runtime, no clock and no random number: the time and every new
//! id are arguments. What the service crate does *with* these values is its own affair; this
//! crate never imports it.
//!
//! | module | answers |
//! |---|---|
//! | [`config`] | what does `cinder.conf` say? |
//! | [`messaging`] | what does oslo.messaging put on the wire, and into which queue? |
//! | [`objects`] | how do Cinder's versioned objects look on the wire? |
//! | [`rpc`] | which methods are served and called, in which versions? |
//! | [`ids`], [`names`], [`service_metadata`] | what are things called in a Ceph pool? |
//! | [`volume_metadata`], [`backup_record`] | what is written beside a backup, and exported? |
//! | [`state`] | which status may follow which, and with which words is the rest refused? |
//! | [`notification`], [`user_message`], [`log_line`], [`log_json`] | what do operators and users get to read? |
//! | [`secret`], [`service_catalog`] | what is a key in Barbican, and where is that? |
//! | [`python_json`], [`json_weight`] | how is it written as Python would, and how much may be read? |
//! | [`hidden`], [`excerpt`](mod@excerpt) | how is it kept out of logs, or told in short? |
//!
//! Facts are those of Cinder 29.0.0 with oslo.messaging 18.3.1 and are checked against messages
//! recorded from them (`tests/contract`).

#![forbid(unsafe_code)]

pub mod backup_record;
pub mod config;
pub mod excerpt;
pub mod hidden;
pub mod ids;
pub mod json_weight;
pub mod log_json;
pub mod log_line;
pub mod messaging;
pub mod names;
pub mod notification;
pub mod objects;
pub mod python_json;
pub mod rpc;
pub mod secret;
pub mod service_catalog;
pub mod service_metadata;
pub mod state;
pub mod user_message;
pub mod volume_metadata;
