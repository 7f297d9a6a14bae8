//! Everything that a real Cinder 29.0.0 put on the wire, into a pool and into a record must be
//! understood, and what we write in its place must mean the same.
//!
//! The fixtures were recorded from a throwaway cloud with Python's cinder-backup; tokens are
//! replaced by `TOKEN`. Of messages of the same kind and shape only the first ones are kept.

mod broker;
mod documents;
mod fixtures;
mod messages;
mod notifications;
mod outgoing;
