"""Where a lab lives: its folder, its ports, what it was asked for."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .process import LabError, Processes

REPOSITORY = Path(__file__).resolve().parents[3]

# What is to be installed for each release of Cinder. With the newest come Keystone, Barbican and the
# clients, which labs with an older Cinder have, too.
REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements"
RELEASES = sorted(path.stem for path in REQUIREMENTS.glob("[0-9]*.txt"))
NEWEST = RELEASES[-1]

# Outside the range that Linux takes ports of outgoing connections from: a client that reconnects
# to a broker that is away can otherwise be given the broker's own port.
FIRST_PORT, LAST_PORT, BLOCK = 20000, 29999, 250

# The databases, each with its owner.
DATABASES = ("keystone", "barbican", "glance", "cinder")
# A user of Cinder's database who is let in through TLS only.
SECURE = "secure"
# What the second cloud has of its own.
SECOND_DATABASE = SECOND_VIRTUAL_HOST = "second"


def cache() -> Path:
    """What labs share: the virtual environments and the prepared databases."""
    chosen = os.environ.get("CINDERBLOCK_LAB_CACHE")
    path = Path(chosen) if chosen else Path.home() / ".cache" / "cinderblock" / "lab"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock; others wait for it."""
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_locked(path: Path) -> bool:
    """Whether some process holds that lock now."""
    if not path.exists():
        return False
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def claims() -> Path:
    """Which lab has which ports: of the machine, not of a user or a checkout, as ports are."""
    shared = Path("/run/lock")
    path = (shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())) / "cinderblock-lab"
    path.mkdir(exist_ok=True)
    return path


def folder(name: str) -> Path:
    """The folder of the lab of that name."""
    return REPOSITORY / ".lab" / name


@dataclasses.dataclass
class Lab:
    """One lab. `base` is the first of its block of ports."""

    name: str
    base: int
    runtime: str
    messaging: str = "classic"
    backups_on: str = "second"
    database: str = "mariadb"
    cinder: str = NEWEST
    data_pools: str = "none"
    devices: bool = False
    worker: str | None = None

    @property
    def dir(self) -> Path:
        return folder(self.name)

    def path(self, *parts: str) -> Path:
        return self.dir.joinpath(*parts)

    @property
    def processes(self) -> Processes:
        return Processes(self.dir)

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
    def database_port(self) -> int:
        return self.port(4)

    @property
    def keystone_port(self) -> int:
        return self.port(5)

    @property
    def cinder_port(self) -> int:
        return self.port(6)

    @property
    def rabbit_tls_port(self) -> int:
        return self.port(7)

    @property
    def barbican_port(self) -> int:
        return self.port(8)

    @property
    def glance_port(self) -> int:
        return self.port(9)

    @property
    def second_cinder_port(self) -> int:
        # Behind those of the clusters.
        return self.port(220)

    @property
    def keystone_url(self) -> str:
        return f"http://127.0.0.1:{self.keystone_port}/v3"

    @property
    def cinder_url(self) -> str:
        return f"http://127.0.0.1:{self.cinder_port}/v3"

    @property
    def second_cinder_url(self) -> str:
        return f"http://127.0.0.1:{self.second_cinder_port}/v3"

    @property
    def barbican_url(self) -> str:
        return f"http://127.0.0.1:{self.barbican_port}"

    @property
    def glance_url(self) -> str:
        return f"http://127.0.0.1:{self.glance_port}"

    @property
    def amqp_url(self) -> str:
        return f"rabbit://openstack:openstack@127.0.0.1:{self.rabbit_port}//"

    @property
    def second_amqp_url(self) -> str:
        return f"{self.amqp_url.removesuffix('/')}{SECOND_VIRTUAL_HOST}"

    @property
    def amqps_url(self) -> str:
        return f"rabbit://openstack:openstack@localhost:{self.rabbit_tls_port}//"

    def database_url(self, owner: str, name: str | None = None) -> str:
        """Of a database, which is named like its owner unless another name is given."""
        dialect = {"mariadb": "mysql+pymysql", "postgresql": "postgresql+psycopg2"}[self.database]
        return f"{dialect}://{owner}:{owner}@127.0.0.1:{self.database_port}/{name or owner}"

    @property
    def database_tls(self) -> Path:
        return self.path("etc", "database-tls")

    def save(self) -> None:
        partial = self.path("state.partial")
        partial.write_text(json.dumps(dataclasses.asdict(self), indent=1))
        partial.rename(self.path("state.json"))


def load(name: str) -> Lab:
    """A lab that was brought up."""
    path = folder(name) / "state.json"
    try:
        return Lab(**json.loads(path.read_text()))
    except FileNotFoundError:
        raise LabError(f"There is no lab {name!r}: bring it up with `lab up --name {name}`") from None


def labs() -> list[Lab]:
    """Every lab of this checkout."""
    return [load(path.parent.name) for path in sorted(REPOSITORY.glob(".lab/*/state.json"))]


def create(name: str) -> Lab:
    """A lab with a folder and ports of its own; the one that is there, if it is."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise LabError(f"A lab cannot be named {name!r}")
    with locked(claims() / "lock"):
        if (folder(name) / "state.json").exists():
            return load(name)
        # The socket's path must fit into 107 bytes, which a checkout's may not.
        lab = Lab(name, _free_block(), tempfile.mkdtemp(prefix="cblab-"))
        for part in ("log", "run", "data", "etc"):
            lab.path(part).mkdir(parents=True, exist_ok=True)
        lab.save()
        (claims() / str(lab.base)).write_text(str(lab.dir))
    return lab


def _free_block() -> int:
    for base in range(FIRST_PORT, LAST_PORT - BLOCK, BLOCK):
        claim = claims() / str(base)
        if claim.exists():
            if Path(claim.read_text(), "state.json").exists():
                continue
            claim.unlink()
        if all(_is_free(base + offset) for offset in range(BLOCK)):
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
    (claims() / str(lab.base)).unlink(missing_ok=True)
    remove_folder(lab.name)


def remove_folder(name: str) -> None:
    """Removes what is left of a lab's folder, and the folder of labs after the last."""
    shutil.rmtree(folder(name), ignore_errors=True)
    with contextlib.suppress(OSError):
        folder(name).parent.rmdir()
