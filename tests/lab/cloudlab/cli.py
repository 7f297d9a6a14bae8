"""The command line of the lab."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from . import cinder, database, devices, lifecycle, rabbitmq, setup, state, tempest
from .process import LabError
from .state import Lab


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return arguments.verb(arguments) or 0
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; `lab down` stops what was started", file=sys.stderr, flush=True)
        # At once: a normal end would wait for the threads in which parts are started.
        os._exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="A whole cloud on loopback; see tests/lab/README.md.")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    def verb(name: str, function: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        added.set_defaults(verb=function)
        added.add_argument("--name", default="default", help="the lab (%(default)s)")
        return added

    install = verb("setup", lambda arguments: setup.setup(arguments.cinder, arguments.tempest), "Install what labs need on this machine")
    install.add_argument("--cinder", choices=state.RELEASES, default=state.NEWEST, help="for labs with that release, too (%(default)s)")
    install.add_argument("--tempest", action="store_true", help="for the verb tempest, too")
    up = verb("up", _up, "Bring a lab up, or start what is missing of it")
    up.add_argument("--backup-worker", metavar="none|python|COMMAND", help="which worker makes backups (none)")
    up.add_argument("--messaging", choices=("classic", "kolla"), help="oslo.messaging's defaults, or as Kolla configures it")
    up.add_argument("--backups-on", choices=("second", "same"), help="the cluster of the backups (second)")
    up.add_argument("--database", choices=tuple(database.SYSTEMS), help="the database server (mariadb)")
    up.add_argument("--cinder", choices=state.RELEASES, help=f"the release of Cinder ({state.NEWEST})")
    up.add_argument("--data-pools", choices=("none", "erasure"), help="where images of volumes and backups have their data (none)")
    up.add_argument("--devices", action="store_true", default=None, help="with volumes that are not in Ceph, too")
    up.add_argument("--only", metavar="PART,…", help="only these and what they need: " + ", ".join(lifecycle.PARTS))
    down = verb("down", _down, "Stop everything that a lab has started, and remove it")
    down.add_argument("--keep", action="store_true", help="keep its folder, so that it can be brought up again")
    env = verb("env", _env, "Print the environment for clients and tests")
    env.add_argument("--user", choices=("admin", "demo"), default="admin")
    env.add_argument("--json", action="store_true")
    sqlite = verbs.add_parser("sqlite", help="Make Cinder's schema in a file of SQLite, and print its URL")
    sqlite.set_defaults(verb=_sqlite)
    sqlite.add_argument("file", type=Path)
    verb("status", _status, "Show what runs")
    verb("list", _list, "Show the labs of this checkout")
    logs = verb("logs", _logs, "Show where the logs are, or the end of one")
    logs.add_argument("part", nargs="?")
    start = verb("start", _start, f"Start a part: {', '.join(cinder.WORKERS)}, {cinder.SECOND_CLOUD}, or one that `status` lists")
    stop = verb("stop", _stop, "Stop a part")
    restart = verb("restart", _restart, "Stop a part and start it again")
    for added in (start, stop, restart):
        added.add_argument("part")
    for added in (start, restart):
        added.add_argument("--wait", action="store_true", help="return when it can be used, a worker: gets work")
    for added in (stop, restart):
        added.add_argument("--signal", type=_signal, default="TERM", help="what it is sent first (%(default)s)")
    send = verb("send", _send, "Send a signal to a part: STOP makes it hang, CONT lets it go on")
    send.add_argument("signal", type=_signal)
    send.add_argument("part")
    attach = verb("volume-attach", _attach, "Make a volume in-use")
    detach = verb("volume-detach", _detach, "Make a volume available again")
    for added in (attach, detach):
        added.add_argument("volume", metavar="ID")
    integration = verb("tempest", _tempest, "Run OpenStack's own tests of backups, with the worker that runs")
    integration.add_argument("--concurrency", type=int, default=4, help="how many tests at a time (%(default)s)")
    integration.add_argument("selection", nargs="?", default=tempest.BACKUPS, metavar="REGEX", help="other tests: those whose names it finds")
    broker = verb("rabbitmqctl", _rabbitmqctl, "Run rabbitmqctl on the lab's broker")
    broker.add_argument("command", nargs=argparse.REMAINDER, metavar="-- ARGUMENTS")
    inside = verb("run", _run, "Run a command that sees the lab's /etc/ceph")
    inside.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    return parser


def _signal(text: str) -> signal.Signals:
    try:
        return signal.Signals[f"SIG{text.upper().removeprefix('SIG')}"]
    except KeyError:
        raise argparse.ArgumentTypeError(f"there is no signal {text!r}") from None


def _up(arguments: argparse.Namespace) -> None:
    only = arguments.only.split(",") if arguments.only else lifecycle.WHOLE
    chosen = {field: getattr(arguments, field) for field in ("messaging", "backups_on", "database", "cinder", "data_pools", "devices")}
    lifecycle.up(arguments.name, arguments.backup_worker, chosen, only)


def _down(arguments: argparse.Namespace) -> None:
    lifecycle.down(arguments.name, arguments.keep)


def environment(lab: Lab, user: str) -> dict[str, str]:
    """What clients and tests want to know."""
    return {
        "PATH": f"{setup.cloud_environment().path}/bin:{os.environ['PATH']}",
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
        "LAB_VENV": str(setup.cloud_environment(lab.cinder).path),
        "LAB_CINDER_RELEASE": lab.cinder,
        "LAB_CINDER_CONF": str(lab.path("etc", "cinder", "cinder.conf")),
        "LAB_VOLUME_FILES": str(devices.folder(lab)),
        "LAB_WORKER_HOST": cinder.WORKER_HOST,
        "LAB_WORKER": lab.worker or "",
        "LAB_VOLUMES_CEPH_CONF": str(lab.path("ceph", "volumes", "ceph.conf")),
        "LAB_BACKUPS_CEPH_CONF": str(lab.path("ceph", "backups" if lab.backups_on == "second" else "volumes", "ceph.conf")),
        "LAB_AMQP_URL": lab.amqp_url,
        "LAB_AMQPS_URL": lab.amqps_url,
        "LAB_RABBIT_TLS": str(lab.path("etc", "rabbitmq", "tls")),
        "LAB_RABBIT_MGMT_URL": rabbitmq.management_url(lab),
        "LAB_DATABASE_URL": lab.database_url("cinder"),
        "LAB_DATABASE_TLS": str(lab.database_tls),
        "LAB_KEYSTONE_URL": lab.keystone_url,
        "LAB_CINDER_URL": lab.cinder_url,
        "LAB_SECOND_CINDER_URL": lab.second_cinder_url,
        "LAB_SECOND_DATABASE_URL": lab.database_url("cinder", state.SECOND_DATABASE),
        "LAB_BARBICAN_URL": lab.barbican_url,
        "LAB_GLANCE_URL": lab.glance_url,
    }


def _env(arguments: argparse.Namespace) -> None:
    values = environment(state.load(arguments.name), arguments.user)
    if arguments.json:
        print(json.dumps(values, indent=1))
        return
    for name, value in values.items():
        print(f"export {name}={shlex.quote(value)}")


def _sqlite(arguments: argparse.Namespace) -> None:
    print(database.sqlite(arguments.file))


def _status(arguments: argparse.Namespace) -> None:
    lab = state.load(arguments.name)
    processes = lab.processes
    remembered = {"worker"} if lab.worker else set()
    for part in sorted({*processes.names(), *remembered}):
        pid = processes.pid(part)
        print(f"{part:18} {'up' if pid else 'down':5} {pid or '-':>8}  {processes.log_of(part)}")


def _list(_: argparse.Namespace) -> None:
    for lab in state.labs():
        processes = lab.processes
        running = sum(1 for part in processes.names() if processes.pid(part))
        print(f"{lab.name:18} {running:3} running  ports {lab.base}-{lab.base + state.BLOCK - 1}  {lab.dir}")


def _logs(arguments: argparse.Namespace) -> None:
    lab = state.load(arguments.name)
    if not arguments.part:
        print("\n".join(str(path) for path in sorted(lab.path("log").iterdir()) if path.is_file()))
        return
    text = lab.processes.tail(arguments.part, 40)
    if not text:
        raise LabError(f"{arguments.part!r} has logged nothing in {lab.path('log')}")
    print(text)


def _start(arguments: argparse.Namespace) -> None:
    lifecycle.start(state.load(arguments.name), arguments.part, arguments.wait)


def _stop(arguments: argparse.Namespace) -> None:
    lifecycle.stop(state.load(arguments.name), arguments.part, arguments.signal)


def _send(arguments: argparse.Namespace) -> None:
    lifecycle.send(state.load(arguments.name), arguments.part, arguments.signal)


def _rabbitmqctl(arguments: argparse.Namespace) -> None:
    rabbitmq.control(state.load(arguments.name), arguments.command[1:])


def _restart(arguments: argparse.Namespace) -> None:
    _stop(arguments)
    _start(arguments)


def _attach(arguments: argparse.Namespace) -> None:
    cinder.attach(state.load(arguments.name), arguments.volume)


def _detach(arguments: argparse.Namespace) -> None:
    cinder.detach(state.load(arguments.name), arguments.volume)


def _tempest(arguments: argparse.Namespace) -> int:
    return tempest.run(state.load(arguments.name), arguments.selection, arguments.concurrency)


def _run(arguments: argparse.Namespace) -> NoReturn:
    lab = state.load(arguments.name)
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise LabError("No command was given: lab run -- COMMAND")
    env = {**os.environ, **environment(lab, "admin")}
    command = cinder.inside(lab, command)
    # In place of this process, so that a signal reaches it.
    os.execvpe(command[0], command, env)
