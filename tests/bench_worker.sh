#!/usr/bin/env bash
# Our worker against Python's, in turns, in a real cloud.
set -euo pipefail
cd "$(dirname "$0")/.."

lab=tests/lab/lab
name=bench-$$
trap '"$lab" down --name "$name"' EXIT
trap 'exit 130' INT TERM
cargo build --locked --release -p cinderblock-tests --benches
"$lab" up --name "$name" --backup-worker "$PWD/target/release/cinder-backup"
eval "$("$lab" env --name "$name" --user demo)"
cargo bench --locked -p cinderblock-tests --bench worker -- "$@"
