#!/usr/bin/env bash
# Our diff transfer against `rbd export-diff | rbd import-diff`, in turns, between two real clusters.
set -euo pipefail
cd "$(dirname "$0")/.."

lab=tests/lab/lab
name=bench-$$
trap '"$lab" down --name "$name"' EXIT
trap 'exit 130' INT TERM
cargo build --locked --release -p cinderblock-service --benches
"$lab" up --name "$name" --only ceph
eval "$("$lab" env --name "$name")"
cargo bench --locked -p cinderblock-service --bench diff_transfer "$@"
