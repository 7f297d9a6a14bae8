#!/usr/bin/env bash
# Everything that is checked: formatting, lints, documentation and dependencies; the tests that need
# no real parts; those of each room on real parts; and the whole with a real Cinder. The lab is
# taken down at the end, whatever happens.
set -euo pipefail
cd "$(dirname "$0")/.."

lab=tests/lab/lab
name=test-$$
finish() {
    status=$?
    if [ "$status" -ne 0 ] && [ -d ".lab/$name/log" ]; then
        echo "== The end of the worker's log"
        tail -n 40 ".lab/$name"/log/worker*.log 2>/dev/null || true
    fi
    "$lab" down --name "$name"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

tests/lint.sh
cargo build --locked --release --bin cinder-backup
cargo test --locked --workspace --lib --bins
cargo test --locked -p cinderblock-api-compat --tests

cloud() {
    "$lab" up --name "$name" --backup-worker "$PWD/target/release/cinder-backup" "$@"
    eval "$("$lab" env --name "$name" --user demo)"
}

# One after another: some stop and start the workers that the others need.
suites() {
    for suite in "$@"; do
        cargo test --locked -p cinderblock-tests --test "$suite"
    done
}

cloud --devices
cargo test --locked -p cinderblock-service --test start --test rbd --test transfer --test vault --test db
LAB_DATABASE_URL=$("$lab" sqlite "$PWD/.lab/$name/cinder.sqlite") \
    cargo test --locked -p cinderblock-service --test db -- --skip server:: --skip mysql::
# Many of these start a Python of their own: a few at a time is all that two cores can carry.
cargo test --locked -p cinderblock-service --test amqp -- --test-threads=4
suites life_cycle chains independent restores bad_input records log_levels progress cancel killed twins fallback pools devices outages encrypted key_managers interop parity
"$lab" down --name "$name"

# As Kolla sets the broker up, with the backups in the volumes' cluster, with erasure-coded data, and with
# the other database.
cloud --messaging kolla --backups-on same --data-pools erasure --database postgresql
cargo test --locked -p cinderblock-service --test db -- --skip mysql::
cargo test --locked -p cinderblock-service --test start -- database
suites life_cycle restores data_pools
cargo test --locked -p cinderblock-tests --test interop -- one_chain_in_turns
