#!/usr/bin/env bash
# bench.sh [OPTION…]: our diff transfer against Ceph's own tools, in turns, between two real clusters.
# bench.sh profile [OPTION…]: the same with a flame graph of ours in docs/flame_graph.svg (needs perf and inferno).
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
    case ${1:-} in
        vault)
            shift
            bench=vault
            ;;
        profile)
            shift
            PROFILE=$(mktemp -d)
            export PROFILE
            ;;
    esac
fi
trap '"$lab" down --name "$name"; rm -rf "${PROFILE:-}"' EXIT
trap 'exit 130' INT TERM
cargo build --locked --release -p "$package" --benches
"$lab" up --name "$name" "${parts[@]}"
eval "$("$lab" env --name "$name" --user demo)"
cargo bench --locked -p "$package" --bench "$bench" -- "$@"
if [ -n "${PROFILE:-}" ]; then
    for recorded in "$PROFILE"/*.perf; do
        perf script --no-inline --input "$recorded"
    done | inferno-collapse-perf | inferno-flamegraph --minwidth 0.3 \
        --title "Processor time of a transfer, by thread" >docs/flame_graph.svg
fi
