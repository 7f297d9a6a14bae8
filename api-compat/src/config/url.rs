//! What transport and database URLs have in common: Python's `urllib.parse`.

use percent_encoding::percent_decode_str;

/// `unquote`: percent-encoded bytes decoded, what is no UTF-8 replaced.
pub(super) fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// `parse_qsl`: names and values of a query. Empty values are dropped.
pub(super) fn query_pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let decoded = |text: &str| decoded(&text.replace('+', " "));
        (!value.is_empty()).then(|| (decoded(name), decoded(value)))
    })
}
