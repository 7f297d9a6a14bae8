//! Payloads that could be messages: the right keys, and anything behind them.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value};

/// Any value, with texts that are longer than they may be.
pub fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Fractions that survive being read: serde_json may miss the last bit of others.
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        any::<String>().prop_map(Value::from),
        "[0-9a-f]{32}".prop_map(Value::from),
        (0_usize..600).prop_map(|length| Value::from("ж".repeat(length))),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(any::<String>(), inner, 0..4)
                .prop_map(|items| Value::Object(items.into_iter().collect())),
        ]
    })
}

/// An object with some of these keys, and now and then another.
pub fn object(keys: &'static [&'static str]) -> impl Strategy<Value = Map<String, Value>> {
    let key = prop_oneof![
        9 => select(keys).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    btree_map(key, value(), 0..8).prop_map(|items| items.into_iter().collect())
}
