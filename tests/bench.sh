#!/usr/bin/env bash
# bench.sh [OPTION…]: our diff transfer against Ceph's own tools, in turns, between two real clusters.
# bench.sh vault [OPTION…]: what a backup costs beside its data, and whether that grows.
# bench.sh worker [OPTION…]: our worker against Python's, in turns, in a real cloud.
set -euo pipefail
cd "$(dirname "$0")/.."

lab=tests/lab/lab
name=bench-$$
if [ "${1:-}" = worker ]; then
    shift
    package=cinderblock-tests
    bench=worker
    parts=(--backup-worker "$PWD/target/release/cinder-backup")
else
    package=cinderblock-service
    bench=diff_transfer
    parts=(--only ceph)
    if [ "${1:-}" = vault ]; then
        shift
        bench=vault
    fi
fi
trap '"$lab" down --name "$name"' EXIT
trap 'exit 130' INT TERM
cargo build --locked --release -p "$package" --benches
"$lab" up --name "$name" "${parts[@]}"
eval "$("$lab" env --name "$name" --user demo)"
cargo bench --locked -p "$package" --bench "$bench" -- "$@"
