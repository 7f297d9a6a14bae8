//! A request that we send: where to, in which version, with which arguments.

use serde_json::{Map, Value};

use crate::messaging::{CallIds, Request, RequestContext};

/// Whether an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Yes. The message expires after `rpc_response_timeout`.
    Call,
    /// No.
    Cast,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Through the control exchange, with this routing key.
    Topic(String),
    /// To every server of this topic, through its fanout exchange.
    Fanout(&'static str),
}

/// A request before it gets its ids.
#[derive(Clone, PartialEq)]
pub struct Outgoing {
    /// Where it goes.
    pub destination: Destination,
    /// Whether an answer is waited for.
    pub kind: Kind,
    /// The method.
    pub method: &'static str,
    /// The RPC version that has the method.
    pub version: &'static str,
    /// The arguments.
    pub args: Map<String, Value>,
}

/// The ids of one message: 32 hex digits each ([`crate::messaging::request::hex_id`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageIds {
    /// The message's own id.
    pub unique_id: String,
    /// For a call, where the answer goes.
    pub call: Option<CallIds>,
}

impl Outgoing {
    pub(crate) fn new<const N: usize>(
        destination: Destination,
        kind: Kind,
        method: &'static str,
        version: &'static str,
        args: [(&str, Value); N],
    ) -> Self {
        Self {
            destination,
            kind,
            method,
            version,
            args: args
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        }
    }

    /// The message itself.
    pub fn into_request(self, context: RequestContext, ids: MessageIds) -> Request {
        Request {
            method: self.method.to_owned(),
            args: self.args,
            version: Some(self.version.to_owned()),
            namespace: None,
            unique_id: Some(ids.unique_id),
            call: ids.call,
            context,
        }
    }
}

/// Shows the names of the arguments only: their values may hold credentials.
impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("destination", &self.destination)
            .field("kind", &self.kind)
            .field("method", &self.method)
            .field("version", &self.version)
            .field("args", &self.args.keys().collect::<Vec<_>>())
            .finish()
    }
}
