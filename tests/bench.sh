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
# Monitors let up to a second pass before they take a snapshot down, whoever asks: chance would be measured.
for conf in "$LAB_VOLUMES_CEPH_CONF" "$LAB_BACKUPS_CEPH_CONF"; do
    ceph --conf "$conf" tell 'mon.*' config set paxos_propose_interval 0.05 >/dev/null
    ceph --conf "$conf" tell 'mon.*' config set paxos_min_wait 0.01 >/dev/null
done
cargo bench --locked -p cinderblock-service --bench diff_transfer -- "$@"
