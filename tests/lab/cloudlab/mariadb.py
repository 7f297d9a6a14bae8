"""MariaDB with databases for Keystone and Cinder, which are kept for the next lab."""

from __future__ import annotations

import getpass
import os
import subprocess
from pathlib import Path

from .process import run, wait_until
from .setup import environment
from .state import Lab, cache

DATABASES = ("keystone", "cinder")


def up(lab: Lab) -> None:
    """Starts the server; creates the databases when they are new."""
    data = lab.path("data", "mysql")
    user = getpass.getuser()
    if not (data / "mysql").exists():
        run(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--user={user}",
                f"--datadir={data}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ]
        )
    lab.processes.start(
        "mariadb",
        [
            "mariadbd",
            "--no-defaults",
            f"--user={user}",
            f"--datadir={data}",
            f"--socket={lab.database_socket}",
            f"--pid-file={lab.path('data', 'mysqld.pid')}",
            "--bind-address=127.0.0.1",
            f"--port={lab.mariadb_port}",
            "--skip-name-resolve",
            "--max-connections=500",
            "--innodb-buffer-pool-size=256M",
            "--innodb-flush-log-at-trx-commit=0",
            "--character-set-server=utf8mb3",
        ],
    )
    wait(lab)
    for name in DATABASES:
        sql(
            lab,
            f"create database if not exists {name} character set utf8mb3;"
            f"create user if not exists '{name}'@'%' identified by '{name}';"
            f"grant all on {name}.* to '{name}'@'%';",
        )


def wait(lab: Lab) -> None:
    """Waits until the server answers."""
    wait_until("mariadb", lambda: _answers(lab), 60, lambda: lab.processes.pid("mariadb"))


def sql(lab: Lab, text: str, database: str | None = None) -> str:
    """Runs statements as root; the rows, separated by tabs."""
    client = ["mariadb", "--no-defaults", f"--socket={lab.database_socket}", "-uroot", "-N"]
    return run([*client, *([database] if database else [])], data=text)


def _answers(lab: Lab) -> bool:
    ping = ["mariadb-admin", "--no-defaults", f"--socket={lab.database_socket}", "-uroot", "ping"]
    return subprocess.run(ping, capture_output=True).returncode == 0


def load(lab: Lab, database: str) -> bool:
    """Fills a database with what an earlier lab kept of its own; whether there was any."""
    # An attempt that was interrupted may have left half of it.
    sql(lab, f"drop database {database}; create database {database} character set utf8mb3;")
    dump = _dump(database)
    if not dump.exists():
        return False
    sql(lab, dump.read_text(), database)
    return True


def keep(lab: Lab, database: str) -> None:
    """Keeps a database for later labs: what creates it takes a minute."""
    options = ["--no-defaults", f"--socket={lab.database_socket}", "-uroot", "--skip-comments"]
    dump = _dump(database)
    partial = dump.with_suffix(f".{os.getpid()}")
    partial.write_text(run(["mariadb-dump", *options, database]))
    partial.rename(dump)


def _dump(database: str) -> Path:
    return cache() / f"{database}-database-{environment().name}.sql"
