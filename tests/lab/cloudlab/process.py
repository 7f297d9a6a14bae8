"""Processes that a lab starts, and the certainty that nothing else is ever stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path


class LabError(Exception):
    """Something that the user has to know; shown without a traceback."""


def start_time(pid: int) -> int | None:
    """When a process began, in the kernel's ticks: with the id it names a process for certain."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may itself hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


class Processes:
    """The processes of one lab, recorded in its folder so that a later command finds them."""

    def __init__(self, run: Path, log: Path) -> None:
        self.run = run
        self.log = log

    def record(self, name: str) -> dict | None:
        try:
            return json.loads((self.run / f"{name}.json").read_text())
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.run.glob("*.json"))

    def pid(self, name: str) -> int | None:
        """The id of a process that runs."""
        record = self.record(name)
        if record and start_time(record["pid"]) == record["started"]:
            return record["pid"]
        return None

    def log_of(self, name: str) -> Path:
        return self.log / f"{name}.log"

    def start(self, name: str, argv: list[str], env: dict[str, str] | None = None, log: str | None = None) -> None:
        """Starts a process in a session of its own, unless it runs."""
        if self.pid(name):
            return
        with open(self.log / f"{log or name + '.out'}", "ab") as out:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
        record = {"pid": child.pid, "started": start_time(child.pid), "argv": argv}
        (self.run / f"{name}.json").write_text(json.dumps(record))

    def stop(self, name: str, number: int = signal.SIGTERM, patience: float = 20) -> None:
        """Stops a process with its session: politely, then not."""
        record = self.record(name)
        if record is None:
            return
        if self.pid(name):
            self._signal(record["pid"], number)
            deadline = time.monotonic() + patience
            while self.pid(name) and time.monotonic() < deadline:
                self._reap(record["pid"])
                time.sleep(0.05)
        # Whatever else is in the session, such as Erlang's helpers.
        if self._session_lives(record["pid"]):
            self._signal(record["pid"], signal.SIGKILL)
            deadline = time.monotonic() + 5
            while self._session_lives(record["pid"]) and time.monotonic() < deadline:
                self._reap(record["pid"])
                time.sleep(0.05)
        (self.run / f"{name}.json").unlink(missing_ok=True)

    @staticmethod
    def _reap(pid: int) -> None:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass

    @staticmethod
    def _signal(group: int, number: int) -> None:
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            pass

    @staticmethod
    def _session_lives(session: int) -> bool:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                return True
        return False

    def tail(self, name: str, lines: int = 15) -> str:
        """The end of what a part has written, for an error message."""
        texts = []
        for path in (self.log / f"{name}.out", self.log_of(name)):
            if path.exists():
                end = path.read_text(errors="replace").splitlines()[-lines:]
                texts.append(f"--- {path}\n" + "\n".join(end))
        return "\n".join(texts)


def wait_until(what: str, done, patience: float, alive=None, pause: float = 0.1) -> None:
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
    done = subprocess.run(argv, env=env, input=data, capture_output=True, text=True)
    if done.returncode != 0:
        shown = " ".join(argv[:6])
        raise LabError(f"{shown} … failed with {done.returncode}:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout
