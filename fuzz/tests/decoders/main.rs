//! What OpenStack sends, stores and is configured with. The decoders that only the service knows have their
//! targets beside them, in modules named `fuzz`.

mod answers;
mod config;
mod messages;
mod objects;
mod records;

use serde_json::Value;

/// The same but for fractions: reading one back may miss its last bit.
fn assert_same(one: &Value, other: &Value) {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            assert_eq!(one.len(), other.len());
            one.iter()
                .zip(other)
                .for_each(|(one, other)| assert_same(one, other));
        }
        (Value::Object(one), Value::Object(other)) => {
            assert!(one.keys().eq(other.keys()));
            one.values()
                .zip(other.values())
                .for_each(|(one, other)| assert_same(one, other));
        }
        (Value::Number(one), Value::Number(other)) if one.is_f64() && other.is_f64() => {}
        _ => assert_eq!(one, other),
    }
}
