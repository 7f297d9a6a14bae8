#!/usr/bin/env bash
# Formatting, clippy with warnings denied, documentation without warnings and with tests that exist,
# dependency policy, bill of materials.
set -euo pipefail
cd "$(dirname "$0")/.."

# Every test that the documentation names exists: `suite::test`, or `path/file.rs::test` beside the code.
tests=$(find api-compat service tests -name '*.rs' -exec awk '
    /^ *#\[(tokio::)?test[](]/ { found = 1; next }
    found && match($0, /fn [a-z0-9_]+\(/) {
        print "/" FILENAME "::" substr($0, RSTART + 3, RLENGTH - 4)
        found = 0
    }' {} +)
cited=$(grep -ohE '`[a-z0-9_/]+(\.rs)?::[a-z0-9_]+`' docs/compatibility.md docs/pains.md docs/security.md | tr -d '`' | sort -u)
missing=$(while IFS= read -r test; do
    case $test in
        *.rs::*) place=/${test%::*} ;;
        *) place="/tests/${test%::*}(\.rs|/.*)" ;;
    esac
    grep -qE "${place}::${test##*::}\$" <<<"$tests" || echo "$test"
done <<<"$cited")
[ -z "$missing" ] || {
    printf 'lint: the documentation names tests that do not exist:\n%s\n' "$missing" >&2
    exit 1
}

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
# It checks what it has written.
tests/sbom.py
