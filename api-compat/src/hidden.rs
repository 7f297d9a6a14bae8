//! Values that travel on the wire and never into a log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Carries a value transparently over the wire and hides it from `Debug`.
///
/// Used for parts of Cinder's objects that may hold credentials (`provider_auth`,
/// `connection_info`, the data of a connection). It protects against a careless log line, not
/// against somebody who reads the process's memory.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden<T>(T);

impl<T> Hidden<T> {
    /// Hides `value`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. The caller must not log it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_tell() {
        assert_eq!(format!("{:?}", Some(Hidden::new("chap"))), "Some([hidden])");
    }

    #[test]
    fn the_wire_sees_the_value() {
        let text = serde_json::to_string(&Hidden::new("chap")).unwrap();
        assert_eq!(text, r#""chap""#);
    }
}
