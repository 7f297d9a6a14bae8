"""Bringing a lab up and down, and its parts one by one."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain

from . import barbican, ceph, cinder, database, devices, glance, keystone, mariadb, postgresql, rabbitmq, setup, state
from .process import MARKER, LabError
from .state import Lab

# What each part needs; in an order in which they can be started.
PARTS: dict[str, tuple[str, ...]] = {
    "ceph": (),
    "rabbitmq": (),
    "database": (),
    "keystone": ("database",),
    "barbican": ("keystone",),
    "glance": ("keystone",),
    "cinder": ("ceph", "rabbitmq", "keystone", "barbican"),
}

# A lab of which nothing else is said.
WHOLE = ("cinder",)

# Held while a lab is being brought up.
UP_LOCK = "up.lock"


def needed(parts: Iterable[str]) -> set[str]:
    """The parts with all that they need."""
    found: set[str] = set()
    for part in parts:
        if part not in PARTS:
            raise LabError(f"There is no part {part!r}; parts are {', '.join(PARTS)}")
        found |= {part} | needed(PARTS[part])
    return found


def up(
    name: str,
    worker: str | None = None,
    chosen: dict[str, str | bool | None] | None = None,
    only: Iterable[str] = WHOLE,
) -> None:
    """Starts what is missing of a lab. `None` is what the lab has been brought up with before."""
    wanted = needed(only)
    chosen = chosen or {}
    setup.check(str(chosen.get("cinder") or state.NEWEST))
    lab = state.create(name)
    # For the commands that are run to their end, too: this one may be killed before they are.
    os.environ[MARKER] = str(lab.dir)
    with state.locked(lab.path(UP_LOCK)):
        _choose(lab, worker, chosen)
        _Progress(lab).bring_up(wanted, worker)
    print(f"Lab {lab.name} is up; logs are in {lab.path('log')}")


def _choose(lab: Lab, worker: str | None, chosen: dict[str, str | bool | None]) -> None:
    for field, value in chosen.items():
        if value in (None, getattr(lab, field)):
            continue
        if lab.processes.record("cinder-api") or (field in ("database", "cinder") and lab.processes.record(lab.database)):
            # Queues, backups and rows that are there would not fit.
            raise LabError(f"Lab {lab.name} has been brought up with {field} = {getattr(lab, field)}: take it down first")
        setattr(lab, field, value)
    if worker not in (None, "none", "python"):
        program, *arguments = shlex.split(worker) or [""]
        # `start` may be called from another folder.
        program = os.path.abspath(program) if "/" in program else program
        command = shlex.join([program, *arguments])
        if command != lab.worker and lab.processes.pid("worker"):
            raise LabError(f"Lab {lab.name} runs the worker {lab.worker}: `stop worker` first")
        lab.worker = command
    lab.save()


class _Progress:
    """Says what is up, and since when; and what is not, with the end of its logs."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.began = time.monotonic()

    def step(self, part: str, function: Callable[[], None]) -> None:
        try:
            function()
        except LabError as error:
            tail = "" if "\n--- " in str(error) else "\n" + self.lab.processes.tail(part)
            raise LabError(f"{part} failed: {error}{tail}".rstrip()) from None
        print(f"[{time.monotonic() - self.began:5.1f} s] {part} is up", flush=True)

    def bring_up(self, wanted: set[str], worker: str | None) -> None:
        lab = self.lab
        # Not in a `with`, which would wait for all of them after an interrupt, too.
        pool = ThreadPoolExecutor()
        # What takes longest first: there may be few processors.
        steps: list[Future[None]] = []
        if "ceph" in wanted:
            for cluster in ceph.POOLS:
                steps.append(pool.submit(self.step, f"ceph-{cluster}", partial(ceph.up, lab, cluster)))
        if "rabbitmq" in wanted:
            steps.append(pool.submit(self.step, "rabbitmq", lambda: rabbitmq.up(lab)))
        if "database" in wanted:
            steps.append(pool.submit(self._identity, wanted))
        errors = [error for step in steps if (error := step.exception())]
        if errors:
            raise errors[0]
        if "ceph" in wanted:
            ceph.write_client_folder(lab)
        if "cinder" in wanted:
            self.step("cinder", lambda: cinder.up(lab))
            part = {None: None, "none": None, "python": "cinder-backup"}.get(worker, "worker")
            if part:
                self.step(part, lambda: cinder.start_worker(lab, part))

    def _identity(self, wanted: set[str]) -> None:
        self.step(self.lab.database, lambda: database.up(self.lab))
        cinder.prepare_database(self.lab)
        if "keystone" in wanted:
            self.step("keystone", lambda: keystone.up(self.lab))
        if "barbican" in wanted:
            self.step("barbican", lambda: barbican.up(self.lab))
        if "glance" in wanted:
            self.step("glance", lambda: glance.up(self.lab))


def down(name: str, keep: bool) -> None:
    """Stops all processes of a lab and removes it, however far it had come."""
    if not (state.folder(name) / "state.json").exists():
        state.remove_folder(name)
        return
    lab = state.load(name)
    if state.is_locked(lab.path(UP_LOCK)):
        raise LabError(f"Lab {name} is just being brought up: interrupt that first")
    processes = lab.processes
    names = processes.names()
    servers = [part for part in names if part in ("rabbitmq", *database.SYSTEMS)]
    daemons = [[part for part in names if part.startswith(f"ceph-{kind}-")] for kind in ("osd", "mgr", "mon")]
    others = {"epmd", *servers, *chain(*daemons)}
    clients = [part for part in names if part not in others]
    # Clients before servers: nobody shall wait for what is gone.
    _stop_all(lab, clients, signal.SIGTERM, 20 if keep else 4)
    if keep:
        # An OSD tells its monitor that it ends; the broker's node is known to epmd.
        for group in (servers + daemons[0], daemons[1], daemons[2] + ["epmd"]):
            _stop_all(lab, group, signal.SIGTERM, 60)
    else:
        _stop_all(lab, sorted(others), signal.SIGKILL, 10)
    processes.sweep()
    devices.release(lab)
    if not keep:
        state.remove(lab)


def _stop_all(lab: Lab, parts: list[str], number: int, patience: float) -> None:
    with ThreadPoolExecutor(len(parts) or 1) as pool:
        for step in [pool.submit(lab.processes.stop, part, _signal(part, number), patience) for part in parts]:
            step.result()


def _signal(part: str, number: int) -> int:
    """What a part has to be sent for what a signal means elsewhere."""
    if part != "postgresql":
        return number
    return {signal.SIGTERM: postgresql.STOP, signal.SIGKILL: postgresql.KILL}.get(signal.Signals(number), number)


def start(lab: Lab, part: str, wait: bool) -> None:
    """Starts one part again; with `wait`, returns when it can be used."""
    if part in cinder.WORKERS:
        cinder.start_worker(lab, part, wait)
        return
    if part == cinder.SECOND_CLOUD:
        cinder.up_second(lab)
        return
    if part == "cinder-scheduler" and wait:
        cinder.start_scheduler(lab)
        return
    lab.processes.start_again(part)
    if wait:
        _wait(lab, part)


def _wait(lab: Lab, part: str) -> None:
    waits = {
        "rabbitmq": rabbitmq.wait,
        "mariadb": mariadb.wait,
        "postgresql": postgresql.wait,
        "keystone": keystone.wait,
        "barbican": barbican.wait,
        "glance": glance.wait,
        "cinder-api": cinder.wait_for_api,
    }
    if part in waits:
        waits[part](lab)
    elif part.startswith("ceph-osd-"):
        ceph.wait(lab, part.removeprefix("ceph-osd-"))


def stop(lab: Lab, part: str, number: int) -> None:
    """Stops one part: with that signal first, with SIGKILL after 20 s."""
    if part == cinder.SECOND_CLOUD:
        _stop_all(lab, [name for name in lab.processes.names() if name.startswith(cinder.SECOND)], number, 20)
        return
    _must_be_known(lab, part)
    lab.processes.stop(part, _signal(part, number))


def send(lab: Lab, part: str, number: int) -> None:
    """Sends a signal to one part, and leaves the rest to it. One that is to hang hangs with its children."""
    _must_be_known(lab, part)
    pid = lab.processes.pid(part)
    if not pid:
        raise LabError(f"{part} does not run")
    send_to = os.killpg if number in (signal.SIGSTOP, signal.SIGCONT) else os.kill
    send_to(pid, number)


def _must_be_known(lab: Lab, part: str) -> None:
    known = {*lab.processes.names(), *cinder.WORKERS}
    if part not in known:
        raise LabError(f"There is no part {part!r} in this lab; parts are {', '.join(sorted(known))}")
