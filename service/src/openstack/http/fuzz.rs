//! What Keystone and Barbican, or whatever stands before them, refuse with.

use super::*;

#[test]
fn refusals() {
    cinderblock_fuzz::run("refusals", |input| {
        assert!(reason(input).chars().count() <= REASON);
        if let Ok(location) = HeaderValue::from_bytes(input) {
            assert!(elsewhere(&location).chars().count() <= REASON);
        }
        let url = String::from_utf8_lossy(input).into_owned();
        let told = address(&url);
        assert!(!told.contains(['?', '#']), "{told:?}");
        // Where it stands for a password, and nowhere else.
        let is_password = url
            .split_once("//user:cinderblock-planted-secret@")
            .is_some_and(|(before, _)| matches!(before, "http:" | "https:" | ""));
        if is_password && url.matches("planted").count() == 1 {
            assert!(!told.contains("planted"), "{told:?}");
        }
        let request = Request::new(Method::GET, url);
        assert!(!request.name().contains('?'), "{}", request.name());
    });
}
