"""One-host Ceph clusters: a monitor, a manager, an OSD on a file."""

from __future__ import annotations

import json
import shutil
import signal
import uuid
from pathlib import Path

from .process import LabError, run, wait_until
from .state import Lab

POOLS = {"volumes": ["volumes", "backups", "backups2"], "backups": ["backups", "backups2"]}

# As Kolla gives them.
CINDER = {
    "mon": "profile rbd",
    "osd": "profile rbd pool=volumes",
    "mgr": "profile rbd pool=volumes",
}
CINDER_BACKUP = {
    "mon": "profile rbd",
    "osd": "profile rbd pool=backups, profile rbd pool=backups2",
    "mgr": "profile rbd pool=backups, profile rbd pool=backups2",
}

# Two pieces of data and one of parity.
ERASURE_OSDS = 3
DATA_POOLS = {"volumes": "volumes-data", "backups": "backups-data"}


class Cluster:
    """One of the lab's two clusters: `volumes` or `backups`."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name
        self.dir = lab.path("ceph", name)
        self.conf = self.dir / "ceph.conf"
        self.first_port = lab.port(10 if name == "volumes" else 110)
        # Pieces of an object go to as many OSDs.
        self.erasure = name == "volumes" and lab.data_pools == "erasure"
        self.osds = range(ERASURE_OSDS if self.erasure else 1)

    @property
    def monitors(self) -> str:
        port = self.first_port
        return f"[v2:127.0.0.1:{port},v1:127.0.0.1:{port + 1}]"

    def fsid(self) -> str:
        lines = self.conf.read_text().splitlines()
        return next(line.split()[2] for line in lines if line.startswith("fsid"))

    def daemons(self) -> list[tuple[str, list[str]]]:
        conf = ["-f", "-c", str(self.conf)]
        return [
            (f"ceph-mon-{self.name}", ["ceph-mon", *conf, "-i", "a"]),
            (f"ceph-mgr-{self.name}", ["ceph-mgr", *conf, "-i", "x"]),
            *((self._osd_name(osd), ["ceph-osd", *conf, "-i", str(osd)]) for osd in self.osds),
        ]

    def _osd_name(self, osd: int) -> str:
        return f"ceph-osd-{self.name}" + (f"-{osd}" if osd else "")

    def up(self) -> None:
        """Creates the cluster if it is new, and starts it."""
        (mon, mon_argv), (mgr, mgr_argv), *osds = self.daemons()
        processes = self.lab.processes
        new = not (self.dir / ".created").exists()
        if new:
            # What an attempt that failed may have left.
            for name, _ in reversed(self.daemons()):
                processes.stop(name, signal.SIGKILL)
            shutil.rmtree(self.dir, ignore_errors=True)
            self._write_conf()
            self._make_monitor()
        processes.start(mon, mon_argv)
        if new:
            self._make_others()
        processes.start(mgr, mgr_argv)
        for osd, osd_argv in osds:
            processes.start(osd, osd_argv)
        self.wait()
        if new:
            self._make_pools_and_users()
            (self.dir / ".created").touch()

    def wait(self) -> None:
        """Waits until the monitor knows that all OSDs are up."""
        osd = self._osd_name(self.osds[-1])
        wait_until(osd, self._osds_are_up, lambda: self.lab.processes.pid(osd))

    def ceph(self, *words: str, data: str | None = None) -> str:
        return run(["ceph", "-c", str(self.conf), "--connect-timeout", "30", *words], data=data)

    def _osds_are_up(self) -> bool:
        return bool(json.loads(self.ceph("osd", "stat", "-f", "json"))["num_up_osds"] == len(self.osds))

    def _write_conf(self) -> None:
        # An OSD alone gets no answer to the leases of its placement groups: one whose lease ended while
        # the OSD was stopped could stay laggy for good, so leases last longer than any test. Nor do pools
        # split their placement groups in the middle of a test. A monitor would let up to a second pass
        # before it takes a snapshot down, whoever asks: tests would wait for it, and benchmarks measure chance.
        for folder in ("mon", "mgr", *(f"osd{osd}" for osd in self.osds)):
            (self.dir / folder).mkdir(parents=True, exist_ok=True)
        runtime, log = self.lab.runtime, self.lab.path("log")
        self.conf.write_text(
            f"""[global]
fsid = {uuid.uuid4()}
mon_host = {self.monitors}
mon_initial_members = a
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_port_min = {self.first_port + 10}
ms_bind_port_max = {self.first_port + 90}
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_crush_chooseleaf_type = 0
osd_pool_default_pg_autoscale_mode = off
osd_pool_default_read_lease_ratio = 60
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
mon_data_avail_warn = 2
mon_data_avail_crit = 1
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
osd_objectstore = bluestore
bluestore_block_size = {20 << 30}
osd_memory_target = 939524096
keyring = {self.dir}/admin.keyring
run_dir = {runtime}
admin_socket = {runtime}/{self.name}-$name.asok
pid_file =
log_file = {log}/ceph-$type-{self.name}.log
[mon.a]
mon_data = {self.dir}/mon
keyring = {self.dir}/mon.keyring
[mgr.x]
mgr_data = {self.dir}/mgr
keyring = {self.dir}/mgr/keyring
[osd]
osd_data = {self.dir}/osd$id
keyring = {self.dir}/osd$id/keyring
[client]
log_file =
admin_socket =
"""
        )

    def _make_monitor(self) -> None:
        admin, mon = self.dir / "admin.keyring", self.dir / "mon.keyring"
        everything = [word for part in ("mon", "osd", "mgr") for word in ("--cap", part, "allow *")]
        create = ["ceph-authtool", "--create-keyring", "--gen-key"]
        run([*create, str(admin), "-n", "client.admin", *everything])
        run([*create, str(mon), "-n", "mon.", "--cap", "mon", "allow *"])
        run(["ceph-authtool", str(mon), "--import-keyring", str(admin)])
        monmap = str(self.dir / "monmap")
        run(["monmaptool", "--create", "--addv", "a", self.monitors, "--fsid", self.fsid(), "--clobber", monmap])
        run(["ceph-mon", "-c", str(self.conf), "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", str(mon)])

    def _make_others(self) -> None:
        mgr = self.ceph("auth", "get-or-create", "mgr.x", "mon", "allow profile mgr", "osd", "allow *")
        _write_secret(self.dir / "mgr" / "keyring", mgr)
        for number in map(str, self.osds):
            osd = str(uuid.uuid4())
            secret = run(["ceph-authtool", "--gen-print-key"]).strip()
            self.ceph("osd", "new", osd, number, "-i", "-", data=json.dumps({"cephx_secret": secret}))
            _write_secret(self.dir / f"osd{number}" / "keyring", f"[osd.{number}]\n\tkey = {secret}\n")
            run(["ceph-osd", "-c", str(self.conf), "-i", number, "--mkfs", "--osd-uuid", osd])

    def _make_pools_and_users(self) -> None:
        for pool in POOLS[self.name]:
            self.ceph("osd", "pool", "create", pool, "8")
            run(["rbd", "-c", str(self.conf), "pool", "init", pool])
        if self.erasure:
            self._make_data_pools()
        for user, capabilities in (("client.cinder", CINDER), ("client.cinder-backup", CINDER_BACKUP)):
            if user == "client.cinder" and self.name != "volumes":
                continue
            if self.erasure:
                capabilities = {**capabilities, "osd": _with_data_pools(capabilities["osd"])}
            words = [word for pair in capabilities.items() for word in pair]
            _write_secret(self.dir / f"{user}.keyring", self.ceph("auth", "get-or-create", user, *words))

    def _make_data_pools(self) -> None:
        """Pools in which the data of images is erasure-coded; their metadata cannot be."""
        self.ceph("osd", "erasure-code-profile", "set", "lab", "k=2", "m=1", "crush-failure-domain=osd")
        for pool, data in DATA_POOLS.items():
            self.ceph("osd", "pool", "create", data, "8", "8", "erasure", "lab")
            self.ceph("osd", "pool", "set", data, "allow_ec_overwrites", "true")
            self.ceph("osd", "pool", "application", "enable", data, "rbd")
            run(["rbd", "-c", str(self.conf), "config", "pool", "set", pool, "rbd_default_data_pool", data])

    def client_conf(self) -> str:
        """What a client needs to find the cluster."""
        return (
            f"[global]\nfsid = {self.fsid()}\nmon_initial_members = a\nmon_host = {self.monitors}\n"
            "auth_cluster_required = cephx\nauth_service_required = cephx\nauth_client_required = cephx\n"
        )


def _with_data_pools(capabilities: str) -> str:
    """The same capabilities in the data pools of those pools."""
    words = capabilities.split(", ")
    pools = [word.rpartition("=")[2] for word in words]
    return ", ".join([*words, *(f"profile rbd pool={DATA_POOLS[pool]}" for pool in pools if pool in DATA_POOLS)])


def _write_secret(path: Path, text: str) -> None:
    path.touch(0o600)
    path.chmod(0o600)
    path.write_text(text)


def up(lab: Lab, name: str) -> None:
    """Brings one cluster up."""
    try:
        Cluster(lab, name).up()
    except LabError as error:
        tails = [lab.processes.tail(part) for part, _ in Cluster(lab, name).daemons()]
        raise LabError("\n".join([f"Ceph cluster {name}: {error}", *filter(None, tails)])) from None


def wait(lab: Lab, name: str) -> None:
    """Waits until a cluster's OSD is up."""
    Cluster(lab, name).wait()


BACKUP_CONF, BACKUP_KEYRING = "ceph-backup.conf", "ceph-backup.client.cinder-backup.keyring"


def backups_conf(lab: Lab) -> str:
    """What backup_ceph_conf is: a file of its own where backups have a cluster of their own."""
    return f"/etc/ceph/{BACKUP_CONF}" if lab.backups_on == "second" else "/etc/ceph/ceph.conf"


def write_client_folder(lab: Lab) -> None:
    """The folder that the services see as /etc/ceph: configuration and keyrings of both clusters."""
    volumes, backups = Cluster(lab, "volumes"), Cluster(lab, "backups")
    folder = lab.path("etc", "ceph")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ceph.conf").write_text(volumes.client_conf())
    for user in ("client.cinder", "client.cinder-backup"):
        _write_secret(folder / f"ceph.{user}.keyring", (volumes.dir / f"{user}.keyring").read_text())
    # Without `keyring`, as Kolla has it: clients find the file by the cluster's name.
    (folder / BACKUP_CONF).write_text(backups.client_conf())
    _write_secret(folder / BACKUP_KEYRING, (backups.dir / "client.cinder-backup.keyring").read_text())
