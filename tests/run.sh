#!/usr/bin/env bash
# Everything that is checked: formatting, lints, documentation and dependencies; the tests that need
# no real parts; those of each room on real parts; and the whole with a real Cinder. The lab is
# taken down at the end, whatever happens.
set -euo pipefail
cd "$(dirname "$0")/.."

# What a test fails with is said in a line; where it came from is in its test's name.
export RUST_LIB_BACKTRACE=0

lab=tests/lab/lab
run=test-$$
beside=
# By default the worker is built as the tests are, with its assertions.
profile=dev
built=debug
finish() {
    status=$?
    [ -z "$beside" ] || kill -- "-$beside" 2>/dev/null || true
    for log in ".lab/$run"-*/log/*worker*.log; do
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
    "$lab" up --name "$name" --backup-worker "$PWD/target/$built/cinder-backup" "${@:2}"
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
    service --test start --test rbd --test db --test openstack --test attach
    # These wait for monitors most of the time.
    service --test transfer --test vault -- --test-threads=4
    LAB_DATABASE_URL=$("$lab" sqlite "$PWD/.lab/$name/cinder.sqlite") \
        service --test db -- --skip server:: --skip mysql::
    # Many of these start a Python of their own: a few at a time is all that two cores can carry.
    service --test amqp -- --test-threads=4
    suites life_cycle chains independent restores verify bad_input records log_levels progress limits killed \
        left_behind resumed fallback pools full starved stops outages
}

other_sources_and_interference() {
    cloud 2 --devices
    suites devices encrypted key_managers interop cancel twins wrong_states meanwhile options takeover secrets privileges
    # Always the same ones here: chance must not refuse a change that has nothing to do with what it found.
    STEPS="restore-point-made" suites steps
    SOAK_SEED=2 SOAK_ROUNDS=1 suites soak
}

# One chain that Python's worker and ours make in turns.
in_turns() { cargo test --locked -p cinderblock-tests --test interop -- one_chain_in_turns; }

# What takes too long for every change: OpenStack's own tests, the comparison with Python's worker, both kinds
# at a time, Kolla's broker, the oldest Cinder with the other database, one cluster and erasure-coded data, and
# each Cinder since.
clouds() {
    "$lab" setup --tempest
    cloud 1
    suites parity fleet tempest
    "$lab" down --name "$name"

    cloud 2 --messaging kolla
    suites life_cycle
    in_turns
    "$lab" down --name "$name"

    "$lab" setup --cinder 21
    cloud 3 --cinder 21 --backups-on same --data-pools erasure --database postgresql
    service --test db -- --skip mysql::
    service --test start -- database
    suites life_cycle data_pools
    in_turns

    for release in 22 23 24 25 26 27 28; do
        "$lab" down --name "$name"
        "$lab" setup --cinder "$release"
        cloud 1 --cinder "$release"
        suites life_cycle records
        in_turns
    done
}

# Starts something beside the rest: most of the time a suite waits for Cinder. In a process group of its
# own, which can be ended as a whole.
start_beside() {
    set -m
    ("$1") >"target/$run-$1.log" 2>&1 &
    beside=$!
    set +m
}

build_programs() { cargo build --locked --profile "$profile" --bins; }

if [ "${1:-}" = soak ]; then
    build_programs
    cloud 1
    SOAK_ROUNDS=${SOAK_ROUNDS:-100} cargo test --locked -p cinderblock-tests --test soak -- --nocapture
    exit
fi
if [ "${1:-}" = clouds ]; then
    # As operators run it.
    profile=release
    built=release
    build_programs
    clouds
    exit
fi

tests/lint.sh
build_programs
cargo test --locked --workspace --lib --bins
cargo test --locked -p cinderblock-api-compat --tests
# Those of the service are among its unit tests.
cargo test --locked -p cinderblock-fuzz --test decoders
cargo test --locked --no-run -p cinderblock-service -p cinderblock-tests

# Side by side.
mkdir -p target
start_beside other_sources_and_interference
rooms_and_whole
echo "== Beside it"
log=target/$run-other_sources_and_interference.log
if wait "$beside"; then
    grep -E '^(test |test result|     Running)' "$log"
else
    cat "$log"
    exit 1
fi
beside=
