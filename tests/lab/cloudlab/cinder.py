"""Cinder: API, scheduler, volume with the RBD driver, and the backup workers."""

from __future__ import annotations

import functools
import os
import shlex
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from . import ceph, database, devices, rabbitmq
from .keystone import SERVE, Identity, credentials, request
from .process import LabError, run, wait_until
from .setup import cloud_environment
from .state import SECOND_DATABASE, SECOND_VIRTUAL_HOST, Lab

# Each worker's host. Ours, another process of ours, and Python's take each other's place: they are one
# host to Cinder. Others stand beside it, and in the second cloud.
WORKER_HOST = "lab-backup"
WORKERS = {
    "worker": WORKER_HOST,
    "worker-2": WORKER_HOST,
    "cinder-backup": WORKER_HOST,
    "other-cinder-backup": "other-cinder-backup",
    "other-worker": "other-worker",
    # A cloud that was built like the first one has hosts of the same names.
    "second-worker": WORKER_HOST,
    "second-cinder-backup": "second-cinder-backup",
}
VOLUME_HOST = "rbd:volumes"

# What the names of the parts of each Cinder begin with. The second has the clusters, Keystone, Barbican and the
# servers of the first, and a database and a virtual host of its own.
FIRST, SECOND = "", "second-"
SECOND_CLOUD = "second-cloud"

# What our worker logs when it takes its part of the messages.
TAKES_REQUESTS = b"Taking requests from the message broker"

# Debian's requests is older than the urllib3 that is installed beside it, and says so.
QUIET = {"PYTHONWARNINGS": "ignore"}

# The volume service reports early and often: the scheduler waits for its first report.
OWN = {
    "backup": f"[DEFAULT]\nhost = {WORKER_HOST}\n",
    "volume": "[DEFAULT]\nperiodic_interval = 5\nbackend_stats_polling_interval = 5\n",
}

KOLLA = """[oslo_messaging_rabbit]
use_queue_manager = true
hostname = lab
processname = {part}
rabbit_quorum_queue = true
rabbit_transient_quorum_queue = true
rabbit_stream_fanout = true
rabbit_qos_prefetch_count = 1
"""


def up(lab: Lab, cloud: str = FIRST) -> None:
    """Starts API, scheduler and volume service; waits until the scheduler can place volumes."""
    venv = cloud_environment(lab.cinder).require()
    running = lab.processes.pid(f"{cloud}cinder-scheduler")
    known = 0 if running else _size(_scheduler_log(lab, cloud))
    for part in ("scheduler", "volume"):
        name = f"{cloud}cinder-{part}"
        argv = [str(venv / "bin" / f"cinder-{part}"), *_files(lab, part, cloud)]
        argv += ["--log-file", str(lab.path("log", f"{name}.log"))]
        start_inside(lab, name, argv, devices.environment())
    log, port = lab.path("log", f"{cloud}cinder-api.log"), _port(lab, cloud)
    api = [str(venv / "bin" / "python"), *SERVE, "cinder", str(port), *_files(lab, "api", cloud), "--log-file", str(log)]
    lab.processes.start(f"{cloud}cinder-api", api, QUIET)
    wait_for_api(lab, cloud)
    _wait_for_scheduler(lab, cloud, known)
    _populate(lab, cloud)


def _wait_for_scheduler(lab: Lab, cloud: str, known: int) -> None:
    """Waits until the scheduler has heard of the volume service, since its log was `known` bytes long."""

    def alive() -> int | None:
        return lab.processes.pid(f"{cloud}cinder-scheduler") and lab.processes.pid(f"{cloud}cinder-volume")

    def placed() -> bool:
        return all(_reports(lab, cloud, "volume", host, known) for host in _volume_hosts(lab, cloud))

    wait_until(f"{cloud}cinder-scheduler with cinder-volume", placed, alive)


def _volume_hosts(lab: Lab, cloud: str) -> list[str]:
    return [VOLUME_HOST, *(f"lab@{name}" for name in devices.BACKENDS if lab.devices and cloud == FIRST)]


def _port(lab: Lab, cloud: str) -> int:
    return lab.second_cinder_port if cloud == SECOND else lab.cinder_port


def up_second(lab: Lab) -> None:
    """Starts the second cloud's Cinder, without a worker; makes its database and virtual host when it is new."""
    if not _created(lab, SECOND).exists():
        database.load(lab, "cinder", SECOND_DATABASE)
        rabbitmq.add_virtual_host(lab, SECOND_VIRTUAL_HOST)
    lab.path("etc", "cinder", "second.conf").write_text(
        f"[DEFAULT]\ntransport_url = {lab.second_amqp_url}\nenabled_backends = rbd-1\n"
        f"[database]\nconnection = {lab.database_url('cinder', SECOND_DATABASE)}\n"
    )
    up(lab, SECOND)


def start_scheduler(lab: Lab) -> None:
    """Starts the first cloud's scheduler again; waits until it can place volumes and backups."""
    known = _size(_scheduler_log(lab, FIRST))
    lab.processes.start_again("cinder-scheduler")
    _wait_for_scheduler(lab, FIRST, known)
    for part, host in WORKERS.items():
        if lab.processes.pid(part) and not part.startswith(SECOND):
            wait_until(f"{part} for the scheduler", lambda: _is_usable(lab, FIRST, host, known))


def prepare_database(lab: Lab) -> None:
    """Writes the configuration and creates the schema, for which only the database is needed."""
    venv = cloud_environment(lab.cinder).require()
    _write_conf(lab, venv)
    conf = lab.path("etc", "cinder", "cinder.conf")
    manage = [str(venv / "bin" / "cinder-manage"), "--config-file", str(conf)]
    created = conf.with_name(".schema")
    if created.exists():
        return
    if not database.load(lab, "cinder"):
        run([*manage, "db", "sync"])
        database.keep(lab, "cinder")
    created.touch()


def start_worker(lab: Lab, part: str, wait: bool = True) -> None:
    """Starts our worker or Python's; waits until the scheduler gives it work."""
    if lab.processes.pid(part):
        return
    cloud = SECOND if part.startswith(SECOND) else FIRST
    if part.endswith("cinder-backup"):
        command = [str(cloud_environment(lab.cinder).require() / "bin" / "cinder-backup")]
    elif lab.worker:
        command = shlex.split(lab.worker)
    else:
        raise LabError("This lab was brought up without a --backup-worker")
    known = _size(_scheduler_log(lab, cloud))
    log, host = lab.path("log", f"{part}.log"), WORKERS[part]
    before = _size(log)
    files = _files(lab, "backup", cloud)
    if host != WORKER_HOST:
        files += ["--config-file", str(lab.path("etc", "cinder", f"{part}.conf"))]
    start_inside(lab, part, [*command, *files, "--log-file", str(log)])
    if wait:
        try:
            alive = functools.partial(lab.processes.pid, part)
            # What the scheduler hears of the host may come from the worker before, or from another one.
            if not part.endswith("cinder-backup"):
                wait_until(part, lambda: TAKES_REQUESTS in _since(log, before), alive)
            wait_until(part, lambda: _is_usable(lab, cloud, host, known), alive)
        except LabError as error:
            raise LabError(f"{error}\n{lab.processes.tail(part)}") from None


def _is_usable(lab: Lab, cloud: str, host: str, known: int) -> bool:
    """Whether what the scheduler heard last of the worker is that it can work. Its row in
    `services` does not tell: Python's worker is up for a while before it is given work."""
    reports = _reports(lab, cloud, "backup", host, known)
    return bool(reports) and b"'backend_state': True" in reports[-1]


def _reports(lab: Lab, cloud: str, kind: str, host: str, known: int) -> list[bytes]:
    """What the scheduler has logged of a service since its log was `known` bytes long."""
    report = f"Received {kind} service update from".encode()
    lines = _since(_scheduler_log(lab, cloud), known).splitlines()
    return [line for line in lines if report in line and host.encode() in line]


def _scheduler_log(lab: Lab, cloud: str) -> Path:
    return lab.path("log", f"{cloud}cinder-scheduler.log")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _since(path: Path, known: int) -> bytes:
    """What a log has got since it was `known` bytes long."""
    if not path.exists():
        return b""
    with open(path, "rb") as log:
        log.seek(known)
        return log.read()


def start_inside(lab: Lab, name: str, argv: list[str], extra: dict[str, str] | None = None) -> None:
    """Starts a service for which the lab's folder is /etc/ceph, as in a container of its own."""
    lab.processes.start(name, inside(lab, argv), {**QUIET, **(extra or {})})


def inside(lab: Lab, argv: list[str]) -> list[str]:
    """A command that sees the lab's /etc/ceph: in a mount namespace of its own."""
    if os.geteuid() != 0:
        raise LabError("Services see the lab's /etc/ceph in a mount namespace, which takes root")
    Path("/etc/ceph").mkdir(exist_ok=True)
    mounts = {str(lab.path("etc", "ceph")): "/etc/ceph"}
    if lab.devices:
        source, target = devices.mount(lab)
        mounts[str(source)] = str(target)
    binds = [f"mount --bind {shlex.quote(source)} {shlex.quote(target)}" for source, target in mounts.items()]
    script = " && ".join([*binds, 'exec "$@"'])
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *argv]


def _files(lab: Lab, part: str, cloud: str) -> list[str]:
    names = ["cinder", part, *(["second"] if cloud == SECOND else [])]
    return [word for name in names for word in ("--config-file", str(lab.path("etc", "cinder", f"{name}.conf")))]


def _answers(lab: Lab, cloud: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{_port(lab, cloud)}/", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except (urllib.error.URLError, OSError):
        return False


def wait_for_api(lab: Lab, cloud: str = FIRST) -> None:
    """Waits until the API answers."""
    part = f"{cloud}cinder-api"
    wait_until(part, lambda: _answers(lab, cloud), lambda: lab.processes.pid(part))


def _created(lab: Lab, cloud: str) -> Path:
    """There once everything is there that a new cloud needs."""
    return lab.path("etc", "cinder", f".{cloud}created")


def _populate(lab: Lab, cloud: str) -> None:
    created = _created(lab, cloud)
    if created.exists():
        return
    admin = Identity(lab)
    base = lab.second_cinder_url if cloud == SECOND else lab.cinder_url
    url = f"{base}/{admin.project}"
    types = {"rbd": "rbd-1", "rbd-luks": "rbd-1"}
    if lab.devices and cloud == FIRST:
        types |= {name: name for name in devices.BACKENDS}
    made = {}
    for name, backend in types.items():
        specs = {"name": name, "extra_specs": {"volume_backend_name": backend}}
        answer, _ = request("POST", f"{url}/types", admin.token, {"volume_type": specs})
        made[name] = answer["volume_type"]["id"]
    encryption = {"provider": "luks", "cipher": "aes-xts-plain64", "key_size": 256, "control_location": "front-end"}
    request("POST", f"{url}/types/{made['rbd-luks']}/encryption", admin.token, {"encryption": encryption})
    quota = {"volumes": 1000, "gigabytes": 10000, "snapshots": 1000, "backups": 1000, "backup_gigabytes": 10000}
    for project in (admin.project, Identity(lab, "demo").project):
        request("PUT", f"{url}/os-quota-sets/{project}", admin.token, {"quota_set": quota})
    created.touch()


def attach(lab: Lab, volume: str) -> None:
    """Makes a volume in-use, as Nova would: through the attachments API."""
    url, token = _volume_api(lab, volume)
    body = {"volume_uuid": volume, "instance_uuid": str(uuid.uuid4())}
    created, _ = request("POST", f"{url}/attachments", token, {"attachment": body}, "3.44")
    attachment = f"{url}/attachments/{created['attachment']['id']}"
    connector = {"host": "lab-compute", "ip": "127.0.0.1", "platform": "x86_64", "os_type": "linux", "multipath": False}
    connector["mountpoint"] = "/dev/vdb"
    request("PUT", attachment, token, {"attachment": {"connector": connector}}, "3.44")
    request("POST", f"{attachment}/action", token, {"os-complete": {}}, "3.44")
    _wait_for_volume(url, token, volume, "in-use")


def detach(lab: Lab, volume: str) -> None:
    """Makes a volume available again."""
    url, token = _volume_api(lab, volume)
    listed, _ = request("GET", f"{url}/attachments?all_tenants=1&volume_id={volume}", token, None, "3.44")
    service = Identity(lab, "cinder", "service").token
    for entry in listed["attachments"]:
        request("DELETE", f"{url}/attachments/{entry['id']}", token, None, "3.44", service)
    _wait_for_volume(url, token, volume, "available")


def _volume_api(lab: Lab, volume: str) -> tuple[str, str]:
    """Cinder's API for the project of that volume, whose the attachment must be."""
    admin = Identity(lab)
    found, _ = request("GET", f"{lab.cinder_url}/{admin.project}/volumes/{volume}", admin.token)
    if found["volume"]["os-vol-tenant-attr:tenant_id"] == admin.project:
        return f"{lab.cinder_url}/{admin.project}", admin.token
    demo = Identity(lab, "demo")
    return f"{lab.cinder_url}/{demo.project}", demo.token


def _wait_for_volume(url: str, token: str, volume: str, status: str) -> None:
    for _ in range(100):
        if request("GET", f"{url}/volumes/{volume}", token)[0]["volume"]["status"] == status:
            return
        time.sleep(0.1)
    raise LabError(f"volume {volume} did not become {status}")


def _write_conf(lab: Lab, venv: Path) -> None:
    folder = lab.path("etc", "cinder")
    state = lab.path("data", "cinder")
    for path in (folder, state / "tmp", state / "coordination"):
        path.mkdir(parents=True, exist_ok=True)
    shared = venv / "etc" / "cinder"
    login = credentials(lab, "cinder")
    (folder / "cinder.conf").write_text(
        f"""[DEFAULT]
debug = true
host = lab
my_ip = 127.0.0.1
transport_url = {lab.amqp_url}
auth_strategy = keystone
state_path = {state}
api_paste_config = {shared}/api-paste.ini
resource_query_filters_file = {shared}/resource_filters.json
rootwrap_config = {shared}/rootwrap.conf
enabled_backends = {",".join(["rbd-1", *(devices.BACKENDS if lab.devices else ())])}
default_volume_type = rbd
backup_driver = cinder.backup.drivers.ceph.CephBackupDriver
backup_ceph_conf = {ceph.backups_conf(lab)}
backup_ceph_user = cinder-backup
backup_ceph_pool = backups
# Short, so that tests need not wait for what is periodic.
periodic_interval = 10
periodic_fuzzy_delay = 0
backup_driver_stats_polling_interval = 10

[rbd-1]
volume_driver = cinder.volume.drivers.rbd.RBDDriver
volume_backend_name = rbd-1
backend_host = rbd:volumes
rbd_pool = volumes
rbd_user = cinder
rbd_ceph_conf = /etc/ceph/ceph.conf
rados_connect_timeout = 5
report_discard_supported = true

{devices.options(lab) if lab.devices else ""}
[database]
connection = {lab.database_url("cinder")}

[keystone_authtoken]
www_authenticate_uri = {lab.keystone_url}
service_token_roles = service
service_token_roles_required = true
{login}

[service_user]
send_service_user_token = true
{login}

[key_manager]
backend = barbican

[barbican]
# Few, so that tests need not wait long for a Barbican that is away.
number_of_retries = 3

[oslo_messaging_notifications]
driver = messagingv2

[oslo_concurrency]
lock_path = {state}/tmp

[coordination]
backend_url = file://{state}/coordination

# Python's worker asks os-brick about this host through privsep, which would use sudo.
[privsep_osbrick]
helper_command = {venv}/bin/privsep-helper --config-file {folder}/cinder.conf
[cinder_sys_admin]
helper_command = {venv}/bin/privsep-helper --config-file {folder}/cinder.conf
"""
    )
    for part, host in WORKERS.items():
        if host != WORKER_HOST:
            (folder / f"{part}.conf").write_text(f"[DEFAULT]\nhost = {host}\n")
    for part in ("api", "scheduler", "volume", "backup"):
        flavour = KOLLA.format(part=f"cinder-{part}") if lab.messaging == "kolla" else ""
        brick = f"[cinderblock]\nos_brick_python = {venv}/bin/python\n" if part == "backup" else ""
        (folder / f"{part}.conf").write_text(OWN.get(part, "") + flavour + brick)
