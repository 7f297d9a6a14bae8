#!/usr/bin/env bash
# Everything that is checked: formatting, lints, documentation and dependencies; the tests that need
# no real parts; those of each room on real parts; and the whole with a real Cinder. The lab is
# taken down at the end, whatever happens.
set -euo pipefail
cd "$(dirname "$0")/.."

lab=tests/lab/lab
run=test-$$
beside=
finish() {
    status=$?
    [ -z "$beside" ] || kill -- "-$beside" 2>/dev/null || true
    for log in ".lab/$run"-*/log/worker*.log; do
        [ "$status" -ne 0 ] && [ -f "$log" ] || continue
        echo "== The end of $log"
        tail -n 40 "$log"
    done
    for name in 1 2 3; do
        "$lab" down --name "$run-$name"
    done
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# NUMBER OPTION…: brings a lab up, for the suites that follow.
cloud() {
    name=$run-$1
    "$lab" up --name "$name" --backup-worker "$PWD/target/release/cinder-backup" "${@:2}"
    eval "$("$lab" env --name "$name" --user demo)"
}

service() { cargo test --locked -p cinderblock-service "$@"; }

# One after another: some stop and start the workers that the others need.
suites() {
    for suite in "$@"; do
        cargo test --locked -p cinderblock-tests --test "$suite"
    done
}

# Each room on real parts, then the whole.
rooms_and_whole() {
    cloud 1
    service --test start --test rbd --test transfer --test vault --test db
    LAB_DATABASE_URL=$("$lab" sqlite "$PWD/.lab/$name/cinder.sqlite") \
        service --test db -- --skip server:: --skip mysql::
    # Many of these start a Python of their own: a few at a time is all that two cores can carry.
    service --test amqp -- --test-threads=4
    suites life_cycle chains independent restores bad_input records log_levels progress cancel \
        killed twins fallback pools outages tempest
}

other_sources_and_clouds() {
    cloud 2 --devices
    suites devices encrypted key_managers interop parity
    "$lab" down --name "$name"

    # As Kolla sets the broker up, with the backups in the volumes' cluster, with erasure-coded data, and
    # with the other database.
    cloud 3 --messaging kolla --backups-on same --data-pools erasure --database postgresql
    service --test db -- --skip mysql::
    service --test start -- database
    suites life_cycle data_pools
    cargo test --locked -p cinderblock-tests --test interop -- one_chain_in_turns
}

tests/lint.sh
cargo build --locked --release --bin cinder-backup
cargo test --locked --workspace --lib --bins
cargo test --locked -p cinderblock-api-compat --tests
cargo test --locked --no-run -p cinderblock-service -p cinderblock-tests

# Side by side: most of the time a suite waits for Cinder. In a process group of its own, which can be
# ended as a whole.
mkdir -p target
set -m
(other_sources_and_clouds) >"target/$run.log" 2>&1 &
beside=$!
set +m
rooms_and_whole
echo "== Beside it"
if wait "$beside"; then
    grep -E '^(test |test result|     Running)' "target/$run.log"
else
    cat "target/$run.log"
    exit 1
fi
beside=
