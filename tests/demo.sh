#!/usr/bin/env bash
# The main job with real parts: a volume with data is backed up, fully and incrementally, by our
# worker through Cinder's own API, and each backup is restored to a new volume and compared.
# Everything runs on loopback and is taken down at the end, whatever happens. A worker of another build may be
# named.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

name=demo-$$
lab=tests/lab/lab
worker=${1:-$PWD/target/release/cinder-backup}

bold= plain=
if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
say() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
finish() {
    status=$?
    if [ "$status" -eq 130 ]; then
        say "Interrupted"
    elif [ "$status" -ne 0 ]; then
        say "The demo failed${failed:+ at: $failed}"
        echo "The end of the worker's log:"
        tail -n 30 "$LAB_DIR"/log/worker*.log 2>/dev/null || true
    fi
    say "Taking everything down"
    "$lab" down --name "$name"
    exit "$status"
}
LAB_DIR=$PWD/.lab/$name
failed=
trap 'failed=$BASH_COMMAND' ERR
trap finish EXIT
trap 'exit 130' INT TERM

say "Bringing up Ceph (two clusters), RabbitMQ, MariaDB, Keystone, Barbican, Cinder, and our cinder-backup"
"$lab" up --name "$name" --backup-worker "$worker"
eval "$("$lab" env --name "$name" --user demo)"

volumes() { rbd --conf "$LAB_VOLUMES_CEPH_CONF" --pool volumes "$@"; }
backups() { rbd --conf "$LAB_BACKUPS_CEPH_CONF" --pool backups "$@"; }
# Writes random data into a volume: ID OFFSET_MIB LENGTH_MIB, three at a time.
fill() { tests/fill-volume.py "$LAB_VOLUMES_CEPH_CONF" "$@"; }
checksum() { volumes export --no-progress "volume-$1" - | openssl dgst -sha256 -r | cut -d' ' -f1; }
status() { openstack volume "$1" show "$2" -f value -c status; }
# Waits until a backup or volume has left its transient status: KIND ID WANTED
await() {
    local kind=$1 id=$2 wanted=$3 now
    for _ in $(seq 600); do
        if [ "$kind" = backup ]; then now=$(status backup "$id"); else now=$(openstack volume show "$id" -f value -c status); fi
        case $now in
        "$wanted") return ;;
        error*) echo "$kind $id is $now" >&2; openstack volume "$kind" show "$id" >&2 || true; return 1 ;;
        esac
        sleep 0.3
    done
    echo "$kind $id is still $now" >&2
    return 1
}
back_up() {
    local id
    id=$(openstack volume backup create "$@" -f value -c id)
    await backup "$id" available
    echo "$id"
}
restore() {
    local id
    id=$(openstack volume backup restore "$1" "$2" -f value -c volume_id)
    await volume "$id" available
    echo "$id"
}

say "Our worker in the list of services"
(eval "$("$lab" env --name "$name" --user admin)" && openstack volume service list)

say "A volume of 2 GiB with 96 MiB of data"
volume=$(openstack volume create --size 2 -f value -c id original)
await volume "$volume" available
fill "$volume" 0 64 1000 32
first=$(checksum "$volume")

say "A full backup"
full=$(back_up --name full "$volume")

say "The data change: 20 MiB overwritten, 4 MiB new"
fill "$volume" 10 20 1500 4
second=$(checksum "$volume")

say "An incremental backup"
incremental=$(back_up --name incremental --incremental "$volume")
openstack volume backup list

say "Both restored, each to a new volume"
from_full=$(restore "$full" restored-full)
from_incremental=$(restore "$incremental" restored-incremental)
openstack volume list

compare() {
    local restored
    restored=$(checksum "$3")
    printf '%-12s backed up %s\n%-12s restored  %s\n' "$1" "$2" "" "$restored"
    [ "$2" = "$restored" ] || { echo "The restored volume differs from what was backed up" >&2; exit 1; }
}
say "Checksums"
compare full "$first" "$from_full"
compare incremental "$second" "$from_incremental"

say "The images and their snapshots: the volumes' pool, then the backups'"
volumes ls --long
backups ls --long

say "Deleting the backups leaves nothing in the pool"
for backup in "$incremental" "$full"; do
    openstack volume backup delete "$backup"
    while openstack volume backup show "$backup" >/dev/null 2>&1; do
        [ "$(status backup "$backup" 2>/dev/null || echo deleted)" != error ] || exit 1
        sleep 0.3
    done
done
left=$(backups ls)
if [ -n "$left" ]; then
    echo "Still there: $left" >&2
    exit 1
fi

say "Done: both backups were restored byte for byte"
