"""Where a lab lives: its folder, its ports, what it was asked for."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .process import LabError, Processes

REPOSITORY = Path(__file__).resolve().parents[3]

# Outside the range that Linux takes ports of outgoing connections from: a client that reconnects
# to a broker that is away can otherwise be given the broker's own port.
FIRST_PORT, LAST_PORT, BLOCK = 20000, 29999, 250


def cache() -> Path:
    """What labs share: the virtual environment and the prepared databases."""
    folder = os.environ.get("CINDERBLOCK_LAB_CACHE")
    path = Path(folder) if folder else Path.home() / ".cache" / "cinderblock" / "lab"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Holds a lock among all labs of this user."""
    with open(cache() / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclasses.dataclass
class Lab:
    """One lab. `base` is the first of its block of ports."""

    name: str
    base: int
    runtime: str
    messaging: str = "classic"
    backups_on: str = "second"
    worker: str | None = None

    @property
    def dir(self) -> Path:
        return REPOSITORY / ".lab" / self.name

    def path(self, *parts: str) -> Path:
        return self.dir.joinpath(*parts)

    @property
    def processes(self) -> Processes:
        return Processes(self.path("run"), self.path("log"))

    def port(self, offset: int) -> int:
        return self.base + offset

    @property
    def rabbit_port(self) -> int:
        return self.port(0)

    @property
    def rabbit_management_port(self) -> int:
        return self.port(1)

    @property
    def epmd_port(self) -> int:
        return self.port(2)

    @property
    def rabbit_distribution_port(self) -> int:
        return self.port(3)

    @property
    def mariadb_port(self) -> int:
        return self.port(4)

    @property
    def keystone_port(self) -> int:
        return self.port(5)

    @property
    def cinder_port(self) -> int:
        return self.port(6)

    @property
    def keystone_url(self) -> str:
        return f"http://127.0.0.1:{self.keystone_port}/v3"

    @property
    def cinder_url(self) -> str:
        return f"http://127.0.0.1:{self.cinder_port}/v3"

    @property
    def amqp_url(self) -> str:
        return f"rabbit://openstack:openstack@127.0.0.1:{self.rabbit_port}//"

    def database_url(self, name: str) -> str:
        return f"mysql+pymysql://{name}:{name}@127.0.0.1:{self.mariadb_port}/{name}"

    @property
    def database_socket(self) -> Path:
        return Path(self.runtime) / "mysqld.sock"

    def save(self) -> None:
        self.path("state.json").write_text(json.dumps(dataclasses.asdict(self), indent=1))


def load(name: str) -> Lab:
    """A lab that was brought up."""
    path = REPOSITORY / ".lab" / name / "state.json"
    try:
        return Lab(**json.loads(path.read_text()))
    except FileNotFoundError:
        raise LabError(f"There is no lab {name!r}: bring it up with `lab up --name {name}`") from None


def labs() -> list[Lab]:
    """Every lab of this checkout."""
    return [load(path.parent.name) for path in sorted(REPOSITORY.glob(".lab/*/state.json"))]


def create(name: str) -> Lab:
    """A lab with a folder and ports of its own; the one that is there, if it is."""
    with contextlib.suppress(LabError):
        return load(name)
    with locked("ports"):
        # The socket's path must fit into 107 bytes, which a checkout's may not.
        lab = Lab(name, _free_block(), tempfile.mkdtemp(prefix="cblab-"))
        for folder in ("log", "run", "data", "etc"):
            lab.path(folder).mkdir(parents=True, exist_ok=True)
        lab.save()
        (cache() / f"ports-{lab.base}").write_text(str(lab.dir))
    return lab


def _free_block() -> int:
    for base in range(FIRST_PORT, LAST_PORT - BLOCK, BLOCK):
        claim = cache() / f"ports-{base}"
        if claim.exists():
            if Path(claim.read_text(), "state.json").exists():
                continue
            claim.unlink()
        if all(_is_free(base + offset) for offset in range(0, BLOCK, 10)):
            return base
    raise LabError(f"No free block of ports between {FIRST_PORT} and {LAST_PORT}: too many labs?")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def remove(lab: Lab) -> None:
    """Forgets a lab whose processes are stopped."""
    shutil.rmtree(lab.runtime, ignore_errors=True)
    shutil.rmtree(lab.dir, ignore_errors=True)
    (cache() / f"ports-{lab.base}").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        lab.dir.parent.rmdir()
