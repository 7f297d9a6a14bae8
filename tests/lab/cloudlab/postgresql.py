"""PostgreSQL with databases for Keystone and Cinder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from .certificates import certify
from .process import LabError, run, wait_until
from .state import DATABASES, SECURE, Lab

# SIGTERM would wait until the last client has gone. What counts for SIGTERM here ends them.
STOP = signal.SIGINT
# Ends at once and leaves no shared memory behind, which SIGKILL would.
KILL = signal.SIGQUIT


def up(lab: Lab) -> None:
    """Starts the server; creates the databases when they are new."""
    data = _folder(lab) / "data"
    if not (data / "PG_VERSION").exists():
        _create(lab, data)
    server = [
        *_user(),
        str(_programs() / "postgres"),
        *("-D", str(data)),
        *("-c", "listen_addresses=127.0.0.1"),
        *("-c", f"port={lab.database_port}"),
        *("-c", f"unix_socket_directories={_folder(lab)}"),
        *("-c", "max_connections=300"),
        *("-c", "fsync=off"),
        # Whoever has waited this long for a deadlock is given up: in tests, not whoever came to wait second.
        *("-c", "deadlock_timeout=3s"),
        *("-c", "ssl=on"),
        *("-c", "ssl_cert_file=server.pem"),
        *("-c", "ssl_key_file=server.key"),
    ]
    lab.processes.start("postgresql", server)
    wait(lab)
    roles = set(sql(lab, "select rolname from pg_roles").split())
    databases = set(sql(lab, "select datname from pg_database").split())
    for name in {*DATABASES, SECURE} - roles:
        sql(lab, f"create role {name} login password '{name}'")
    for name in set(DATABASES) - databases:
        sql(lab, f"create database {name} owner {name}")
    sql(lab, f"grant cinder to {SECURE}")


def wait(lab: Lab) -> None:
    """Waits until the server answers."""
    wait_until("postgresql", lambda: _answers(lab), lambda: lab.processes.pid("postgresql"))


def sql(lab: Lab, text: str, database: str = "postgres") -> str:
    """Runs statements as the administrator; the rows, separated by tabs."""
    client = ["psql", *_connection(lab), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=\t"]
    return run([*_user(), *client, "--set=ON_ERROR_STOP=1", f"--dbname={database}"], data=text)


def renew(lab: Lab, database: str, owner: str) -> None:
    """Makes a database that is empty."""
    sql(lab, f"drop database if exists {database} with (force)")
    sql(lab, f"create database {database} owner {owner}")


def dump(lab: Lab, database: str) -> str:
    """The statements that make a database what it is."""
    return run([*_user(), "pg_dump", *_connection(lab), database])


def _create(lab: Lab, data: Path) -> None:
    folder = _folder(lab)
    folder.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        # The server's user has to reach what is its own.
        Path(lab.runtime).chmod(0o711)
        shutil.chown(folder, "postgres")
    shutil.rmtree(data, ignore_errors=True)
    initdb = [str(_programs() / "initdb"), "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    run([*_user(), *initdb, f"--pgdata={data}"])
    (data / "pg_hba.conf").write_text(
        f"""local all postgres trust
hostssl all {SECURE} 127.0.0.1/32 scram-sha-256
hostnossl all {SECURE} 127.0.0.1/32 reject
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
"""
    )
    certify(lab.database_tls)
    for name in ("server.pem", "server.key"):
        own = data / name
        shutil.copyfile(lab.database_tls / name, own)
        own.chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(own, "postgres")


def _folder(lab: Lab) -> Path:
    # Not in the lab's folder, which only root may reach where the checkout is root's.
    return Path(lab.runtime) / "postgresql"


def _user() -> list[str]:
    """What changes to the user of Debian's package: the server refuses to run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "env", "--chdir=/"]


def _connection(lab: Lab) -> list[str]:
    return [f"--host={_folder(lab)}", f"--port={lab.database_port}", "--username=postgres"]


def _answers(lab: Lab) -> bool:
    return subprocess.run(["pg_isready", *_connection(lab)], capture_output=True).returncode == 0


def _programs() -> Path:
    """Where Debian keeps the newest server that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    if not found:
        raise LabError("PostgreSQL is not installed: run `lab setup`")
    return found[-1]
