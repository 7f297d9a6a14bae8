#!/usr/bin/env bash
# Formatting, clippy with warnings denied, documentation without warnings, dependency policy.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --quiet
if ! command -v cargo-deny >/dev/null; then
    cargo install --locked --quiet cargo-deny
fi
# The advisory database is on the network: it is checked where it can be fetched.
cargo deny --locked --log-level error check bans licenses sources
cargo deny --locked --log-level error check advisories || {
    [ "${REQUIRE_ADVISORIES:-}" != 1 ] || exit 1
    echo "lint: the advisory database could not be fetched or reports something, see above" >&2
}
