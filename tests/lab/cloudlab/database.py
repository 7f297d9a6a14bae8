"""The lab's database server, whichever it is, with databases for Keystone and Cinder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Protocol

from . import mariadb, postgresql
from .process import run
from .setup import cloud_environment
from .state import NEWEST, Lab, cache, locked


class System(Protocol):
    """What a module has to have that runs a server."""

    def up(self, lab: Lab) -> None: ...
    def wait(self, lab: Lab) -> None: ...
    def sql(self, lab: Lab, text: str, database: str) -> str: ...
    def renew(self, lab: Lab, database: str, owner: str) -> None: ...
    def dump(self, lab: Lab, database: str) -> str: ...


SYSTEMS: dict[str, System] = {"mariadb": mariadb, "postgresql": postgresql}


def up(lab: Lab) -> None:
    """Starts the server; creates the databases when they are new."""
    SYSTEMS[lab.database].up(lab)


def sql(lab: Lab, text: str, database: str) -> str:
    """Runs statements as the server's administrator; the rows, separated by tabs."""
    return SYSTEMS[lab.database].sql(lab, text, database)


def load(lab: Lab, service: str, database: str | None = None) -> bool:
    """Fills a service's database, or another one of its, with what an earlier lab kept; whether there was any."""
    # An attempt that was interrupted may have left half of it.
    SYSTEMS[lab.database].renew(lab, database or service, service)
    dump = _dump(lab, service)
    if not dump.exists():
        return False
    sql(lab, dump.read_text(), database or service)
    return True


def keep(lab: Lab, database: str) -> None:
    """Keeps a database for later labs: what creates it takes a minute."""
    dump = _dump(lab, database)
    partial = dump.with_suffix(f".{os.getpid()}")
    partial.write_text(SYSTEMS[lab.database].dump(lab, database))
    partial.rename(dump)


def _dump(lab: Lab, database: str) -> Path:
    release = lab.cinder if database == "cinder" else NEWEST
    return cache() / f"{database}-{lab.database}-{cloud_environment(release).path.name}.sql"


def sqlite(path: Path) -> str:
    """Makes Cinder's schema in a file of SQLite, for which no lab is needed; the database's URL."""
    kept = cache() / f"cinder-{cloud_environment().path.name}.sqlite"
    with locked(cache() / "sqlite.lock"):
        if not kept.exists():
            partial = kept.with_suffix(".partial")
            partial.unlink(missing_ok=True)
            env = {**os.environ, "OS_DATABASE__CONNECTION": f"sqlite:///{partial}"}
            manage = str(cloud_environment().require() / "bin" / "cinder-manage")
            run([manage, "--config-file", os.devnull, "db", "sync"], env=env)
            partial.rename(kept)
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(kept, path)
    return f"sqlite:///{path}"
