//! How much a JSON text holds, before it is taken apart: a tree takes up to a hundred times the memory of its
//! text, so that the length alone is no bound.

/// No fewer values than a JSON text has; also of one that is no JSON. What stands inside of texts counts, too, and so
/// does JSON in a text in JSON.
#[must_use]
pub fn most_values(text: &[u8]) -> usize {
    let begins = |byte: &&u8| matches!(byte, b',' | b'{' | b'[');
    1 + text.iter().filter(begins).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn values(value: &Value) -> usize {
        1 + match value {
            Value::Array(items) => items.iter().map(values).sum(),
            Value::Object(fields) => fields.values().map(values).sum(),
            _ => 0,
        }
    }

    #[test]
    fn a_text_with_json_counts_as_what_it_says() {
        let inner = json!({"a": [1, 2, {"b": null}]});
        let outer = json!({"oslo.message": inner.to_string()});
        assert!(most_values(outer.to_string().as_bytes()) >= values(&inner));
    }

    proptest! {
        #[test]
        fn no_value_is_missed(keys in proptest::collection::vec("[a-z,{]{0,3}", 0..20)) {
            let value = keys.iter().fold(json!([]), |value, key| match key.len() % 2 {
                0 => json!([value, 1, key]),
                _ => json!({key: value, "": [], "x": {}}),
            });
            prop_assert!(most_values(value.to_string().as_bytes()) >= values(&value));
        }
    }
}
