//! What OpenStack sends, stores and is configured with. The decoders that only the service knows have their
//! targets beside them, in modules named `fuzz`.

mod answers;
mod config;
mod messages;
mod objects;
mod records;
