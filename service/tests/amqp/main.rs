//! Messaging on a real RabbitMQ, with oslo.messaging on the other side where it matters.
//!
//! Every test has a virtual host of its own.

mod farewell;
mod interop;
mod lab;
mod logs;
mod peer;
mod poison;
mod recovery;
mod refusals;
mod round_trips;
mod silence;
mod tls;
mod topology;
