"""Processes that a lab starts, and the certainty that nothing else is ever stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# In the environment of everything that a lab starts, with the lab's folder: it finds what has
# left its session (as helpers that become daemons do) when the lab is taken down.
MARKER = "CINDERBLOCK_LAB_FOLDER"

# Seconds that a part may take to come up: on a busy machine, beside another lab.
PATIENCE = 180


class LabError(Exception):
    """Something that the user has to know; shown without a traceback."""


def _stat(pid: int | str) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; nothing for what has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may itself hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields


def start_time(pid: int) -> int | None:
    """When a process began, in the kernel's ticks: with the id it names a process for certain."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


class Processes:
    """The processes of one lab, recorded in its folder so that a later command finds them."""

    def __init__(self, lab: Path) -> None:
        self.lab = lab
        self.run = lab / "run"
        self.log = lab / "log"

    def record(self, name: str) -> dict[str, Any] | None:
        """What is known of a part that was started; its `pid` is 0 once it was stopped."""
        try:
            record: dict[str, Any] = json.loads((self.run / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        return record

    def names(self) -> list[str]:
        """Every part that was ever started, whether or not it runs."""
        return sorted(path.stem for path in self.run.glob("*.json"))

    def pid(self, name: str) -> int | None:
        """The id of a process that runs."""
        record = self.record(name)
        if record and record["pid"] and start_time(record["pid"]) == record["started"]:
            return int(record["pid"])
        return None

    def log_of(self, name: str) -> Path:
        """Where a part logs: a file of its own, or what it writes to its standard output."""
        own = self.log / f"{name}.log"
        return own if own.exists() else self.log / f"{name}.out"

    def start(self, name: str, argv: list[str], extra: dict[str, str] | None = None) -> None:
        """Starts a process in a session of its own, unless it runs."""
        if self.pid(name):
            return
        with open(self.log / f"{name}.out", "ab") as out:
            try:
                child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(extra or {}), MARKER: str(self.lab)},
                    start_new_session=True,
                )
            except OSError as error:
                raise LabError(f"{name} cannot be started: {error}") from None
        self._write(name, child.pid, start_time(child.pid), argv, extra)

    def start_again(self, name: str) -> None:
        """Starts a part as it was started before."""
        record = self.record(name)
        if record is None:
            known = ", ".join(self.names()) or "none"
            raise LabError(f"There is no part {name!r} in this lab; parts are {known}")
        self.start(name, record["argv"], record.get("extra"))

    def _write(self, name: str, pid: int, started: int | None, argv: list[str], extra: dict[str, str] | None) -> None:
        record = {"pid": pid, "started": started, "argv": argv, "extra": extra}
        partial = self.run / f"{name}.partial"
        partial.write_text(json.dumps(record))
        partial.rename(self.run / f"{name}.json")

    def stop(self, name: str, number: int = signal.SIGTERM, patience: float = 60) -> None:
        """Stops a process with its session: politely, then not."""
        record = self.record(name)
        if record is None or not record["pid"]:
            return
        leader = record["pid"]
        if start_time(leader) not in (None, record["started"]):
            # The id has been given to another process: a session of that id is not ours.
            leader = 0
        if leader and self.pid(name):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader, number)
            _wait_for(lambda: not self.pid(name), patience, leader)
        if leader:
            # Whatever else is in the session, such as Erlang's helpers.
            _kill(lambda: _session(leader), leader)
        self._write(name, 0, None, record["argv"], record.get("extra"))

    def sweep(self) -> None:
        """Ends what carries the lab's mark and is not in any recorded session any more."""
        _kill(self._marked)

    def _marked(self) -> Iterator[int]:
        mark = f"{MARKER}={self.lab}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0") and _stat(folder.name):
                    yield int(folder.name)

    def tail(self, name: str, lines: int = 15) -> str:
        """The end of what a part has written, for an error message."""
        texts = []
        for path in (self.log / f"{name}.out", self.log / f"{name}.log"):
            if path.exists() and path.stat().st_size:
                end = path.read_text(errors="replace").splitlines()[-lines:]
                texts.append(f"--- {path}\n" + "\n".join(end))
        return "\n".join(texts)


def _session(leader: int) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(folder.name)
        if fields and int(fields[3]) == leader:
            yield int(folder.name)


def _kill(find: Callable[[], Iterator[int]], child: int | None = None) -> None:
    """Kills what `find` finds until it finds nothing: a process may start another meanwhile."""

    def gone() -> bool:
        found = list(find())
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    _wait_for(gone, 10, child)


def _wait_for(done: Callable[[], bool], patience: float, child: int | None = None) -> None:
    deadline = time.monotonic() + patience
    while not done() and time.monotonic() < deadline:
        if child:
            # It is ours only where the command that started it is the one that stops it.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)
        time.sleep(0.05)


def wait_until(
    what: str,
    done: Callable[[], bool],
    alive: Callable[[], int | None] | None = None,
    patience: float = PATIENCE,
    pause: float = 0.1,
) -> None:
    """Waits until `done()`; gives up when time is over or the process that is waited for has died."""
    deadline = time.monotonic() + patience
    while not done():
        if alive is not None and not alive():
            raise LabError(f"{what} ended while it was starting")
        if time.monotonic() > deadline:
            raise LabError(f"{what} did not come up within {patience:.0f} s")
        time.sleep(pause)


def run(argv: list[str], *, env: dict[str, str] | None = None, data: str | None = None) -> str:
    """Runs a command to its end; its output, or an error that says what it wrote."""
    try:
        done = subprocess.run(argv, env=env, input=data, capture_output=True, text=True)
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is not installed: run `lab setup`") from None
    if done.returncode != 0:
        shown = " ".join(argv[:6])
        raise LabError(f"{shown} … failed with {done.returncode}:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout
