#!/usr/bin/env bash
# Hostile input for every decoder: those of api-compat, and those that only the service knows.
set -euo pipefail
cd "$(dirname "$0")/.."

# A failure tells its input and the command that tries it again, which is more than where it was noticed.
export RUST_BACKTRACE=0
outcome=0
cargo test --locked -p cinderblock-fuzz --test decoders -- --nocapture || outcome=$?
cargo test --locked -p cinderblock-service --lib fuzz:: -- --nocapture || outcome=$?
exit "$outcome"
