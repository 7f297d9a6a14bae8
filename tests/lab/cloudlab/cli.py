"""The command line of the lab."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from . import ceph, cinder, keystone, mariadb, rabbitmq, setup, state
from .process import LabError
from .state import Lab

PARTS = ("ceph", "rabbitmq", "mariadb", "keystone", "cinder")


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return arguments.verb(arguments) or 0
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; `lab down` stops what was started", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="A whole cloud on loopback; see tests/lab/README.md.")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    def verb(name: str, function: Callable, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        added.set_defaults(verb=function)
        if name not in ("setup", "list"):
            added.add_argument("--name", default="default", help="the lab's name (%(default)s)")
        return added

    verb("setup", lambda _: setup.setup(), "Install what labs need on this machine")
    up = verb("up", _up, "Bring a lab up, or start what is missing of it")
    up.add_argument("--backup-worker", metavar="none|python|COMMAND", default="none", help="which worker makes backups (%(default)s)")
    up.add_argument("--messaging", choices=("classic", "kolla"), default="classic", help="oslo.messaging's defaults, or as Kolla configures it")
    up.add_argument("--backups-on", choices=("second", "same"), default="second", help="the cluster of the backups (%(default)s)")
    up.add_argument("--only", metavar="PART,…", help="some of: " + ", ".join(PARTS))
    down = verb("down", _down, "Stop everything that a lab has started, and remove it")
    down.add_argument("--keep", action="store_true", help="keep its folder, so that it can be brought up again")
    env = verb("env", _env, "Print the environment for clients and tests")
    env.add_argument("--user", choices=("admin", "demo"), default="admin")
    env.add_argument("--json", action="store_true")
    verb("status", _status, "Show what runs")
    verb("list", _list, "Show the labs of this checkout")
    logs = verb("logs", _logs, "Show where the logs are, or the end of one")
    logs.add_argument("part", nargs="?")
    start = verb("start", _start, "Start a backup worker: `worker` (ours) or `cinder-backup` (Python's)")
    start.add_argument("part", choices=cinder.WORKERS)
    start.add_argument("--wait", action="store_true", help="return when the scheduler gives it work")
    stop = verb("stop", _stop, "Stop one part")
    stop.add_argument("part")
    stop.add_argument("--signal", default="TERM", help="what it is sent first (%(default)s)")
    for name, function, text in (
        ("volume-attach", cinder.attach, "Make a volume in-use"),
        ("volume-detach", cinder.detach, "Make a volume available again"),
    ):
        added = verb(name, lambda a, f=function: f(state.load(a.name), a.volume), text)
        added.add_argument("volume")
    inside = verb("run", _run, "Run a command that sees the lab's /etc/ceph")
    inside.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    return parser


def _up(arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    wanted = arguments.only.split(",") if arguments.only else list(PARTS)
    for part in wanted:
        if part not in PARTS:
            raise LabError(f"There is no part {part!r}; parts are {', '.join(PARTS)}")
    lab = state.create(arguments.name)
    lab.messaging, lab.backups_on = arguments.messaging, arguments.backups_on
    if arguments.backup_worker not in ("none", "python"):
        lab.worker = arguments.backup_worker
    lab.save()

    def step(name: str, function: Callable[[], None]) -> None:
        try:
            function()
        except LabError as error:
            tail = "" if "---" in str(error) else "\n" + lab.processes.tail(name)
            raise LabError(f"{name} failed: {error}{tail}") from None
        print(f"[{time.monotonic() - began:5.1f} s] {name} is up", flush=True)

    first = [("rabbitmq", lambda: rabbitmq.up(lab)), ("mariadb", lambda: mariadb.up(lab))]
    first = [entry for entry in first if entry[0] in wanted]
    if "ceph" in wanted:
        first += [(f"ceph {name}", lambda name=name: ceph.up(lab, name)) for name in ("volumes", "backups")]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        keystone_after = {name: pool.submit(step, name, function) for name, function in first}
        if "keystone" in wanted:
            # Needs nothing of Ceph or the broker.
            if "mariadb" in keystone_after:
                keystone_after["mariadb"].result()
            step("keystone", lambda: keystone.up(lab))
        for future in keystone_after.values():
            future.result()
    if "ceph" in wanted:
        ceph.write_client_folder(lab)
    if "cinder" in wanted:
        step("cinder", lambda: cinder.up(lab))
        part = {"none": None, "python": "cinder-backup"}.get(arguments.backup_worker, "worker")
        if part:
            step(part, lambda: cinder.start_worker(lab, part))
    print(f"Lab {lab.name} is up; logs are in {lab.path('log')}")


def _down(arguments: argparse.Namespace) -> None:
    try:
        lab = state.load(arguments.name)
    except LabError:
        return
    processes = lab.processes
    # Clients before servers: nobody shall wait for what is gone. An OSD that is asked to end first
    # tells its monitor, which must still be there.
    servers = ["rabbitmq", "epmd", "mariadb"]
    daemons = [part for kind in ("osd", "mgr", "mon") for part in processes.names() if part.startswith(f"ceph-{kind}")]
    clients = [part for part in processes.names() if part not in servers and part not in daemons]
    for group in (clients, servers + daemons):
        with concurrent.futures.ThreadPoolExecutor(len(group) or 1) as pool:
            number = signal.SIGTERM if arguments.keep else signal.SIGKILL
            for future in [pool.submit(processes.stop, part, number if group is not clients else signal.SIGTERM) for part in group]:
                future.result()
    if not arguments.keep:
        state.remove(lab)


def environment(lab: Lab, user: str) -> dict[str, str]:
    """What clients and tests want to know."""
    venv = setup.environment()
    return {
        "PATH": f"{venv}/bin:{os.environ['PATH']}",
        "PYTHONWARNINGS": "ignore",
        "OS_AUTH_URL": lab.keystone_url,
        "OS_IDENTITY_API_VERSION": "3",
        "OS_USERNAME": user,
        "OS_PASSWORD": user,
        "OS_PROJECT_NAME": user,
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_REGION_NAME": "RegionOne",
        "OS_VOLUME_API_VERSION": "3.64",
        "LAB_NAME": lab.name,
        "LAB_DIR": str(lab.dir),
        "LAB_VENV": str(venv),
        "LAB_CINDER_CONF": str(lab.path("etc", "cinder", "cinder.conf")),
        "LAB_WORKER_HOST": cinder.WORKER_HOST,
        "LAB_VOLUMES_CEPH_CONF": str(lab.path("ceph", "volumes", "ceph.conf")),
        "LAB_BACKUPS_CEPH_CONF": str(lab.path("ceph", "backups" if lab.backups_on == "second" else "volumes", "ceph.conf")),
        "LAB_AMQP_URL": lab.amqp_url,
        "LAB_RABBIT_MGMT_URL": rabbitmq.management_url(lab),
        "LAB_DATABASE_URL": lab.database_url("cinder"),
        "LAB_KEYSTONE_URL": lab.keystone_url,
        "LAB_CINDER_URL": lab.cinder_url,
    }


def _env(arguments: argparse.Namespace) -> None:
    values = environment(state.load(arguments.name), arguments.user)
    if arguments.json:
        print(json.dumps(values, indent=1))
        return
    for name, value in values.items():
        print(f"export {name}={shlex.quote(value)}")


def _status(arguments: argparse.Namespace) -> None:
    processes = state.load(arguments.name).processes
    for part in processes.names():
        pid = processes.pid(part)
        print(f"{part:18} {'up' if pid else 'down':5} {pid or '-':>8}  {processes.log_of(part)}")


def _list(_: argparse.Namespace) -> None:
    for lab in state.labs():
        print(f"{lab.name:18} {lab.dir}")


def _logs(arguments: argparse.Namespace) -> None:
    lab = state.load(arguments.name)
    print(lab.processes.tail(arguments.part, 40) if arguments.part else lab.path("log"))


def _start(arguments: argparse.Namespace) -> None:
    cinder.start_worker(state.load(arguments.name), arguments.part, arguments.wait)


def _stop(arguments: argparse.Namespace) -> None:
    try:
        number = signal.Signals[f"SIG{arguments.signal.upper().removeprefix('SIG')}"]
    except KeyError:
        raise LabError(f"There is no signal {arguments.signal!r}") from None
    state.load(arguments.name).processes.stop(arguments.part, number)


def _run(arguments: argparse.Namespace) -> int:
    lab = state.load(arguments.name)
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise LabError("No command was given: lab run -- COMMAND")
    env = {**os.environ, **environment(lab, "admin")}
    return subprocess.run(cinder.inside(lab, command), env=env).returncode
