"""MariaDB with databases for Keystone, Barbican and Cinder."""

from __future__ import annotations

import getpass
import subprocess

from .certificates import certify
from .process import run, wait_until
from .state import DATABASES, SECURE, Lab


def up(lab: Lab) -> None:
    """Starts the server; creates the databases when they are new."""
    data, tls = lab.path("data", "mysql"), lab.database_tls
    certify(tls)
    # A server that starts removes every temporary table in its directory: in /tmp, another lab's too.
    temporary = lab.path("data", "mysql-tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    user = getpass.getuser()
    if not (data / "mysql").exists():
        run(
            [
                "mariadb-install-db",
                "--no-defaults",
                f"--user={user}",
                f"--datadir={data}",
                f"--tmpdir={temporary}",
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
            f"--tmpdir={temporary}",
            f"--socket={_socket(lab)}",
            f"--pid-file={lab.path('data', 'mysqld.pid')}",
            "--bind-address=127.0.0.1",
            f"--port={lab.database_port}",
            f"--ssl-ca={tls}/ca.pem",
            f"--ssl-cert={tls}/server.pem",
            f"--ssl-key={tls}/server.key",
            "--skip-name-resolve",
            "--max-connections=500",
            "--innodb-buffer-pool-size=256M",
            # What is committed outlives the server, though not the machine.
            "--innodb-flush-log-at-trx-commit=2",
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
    sql(
        lab,
        f"create user if not exists '{SECURE}'@'%' identified by '{SECURE}' require ssl;"
        f"grant all on cinder.* to '{SECURE}'@'%';",
    )


def wait(lab: Lab) -> None:
    """Waits until the server answers."""
    wait_until("mariadb", lambda: _answers(lab), lambda: lab.processes.pid("mariadb"))


def sql(lab: Lab, text: str, database: str | None = None) -> str:
    """Runs statements as root; the rows, separated by tabs."""
    client = ["mariadb", "--no-defaults", f"--socket={_socket(lab)}", "-uroot", "-N"]
    return run([*client, *([database] if database else [])], data=text)


def _answers(lab: Lab) -> bool:
    ping = ["mariadb-admin", "--no-defaults", f"--socket={_socket(lab)}", "-uroot", "ping"]
    return subprocess.run(ping, capture_output=True).returncode == 0


def renew(lab: Lab, database: str, owner: str) -> None:
    """Makes a database that is empty."""
    sql(
        lab,
        f"drop database if exists {database};"
        f"create database {database} character set utf8mb3;"
        f"grant all on {database}.* to '{owner}'@'%';",
    )


def dump(lab: Lab, database: str) -> str:
    """The statements that make a database what it is."""
    options = ["--no-defaults", f"--socket={_socket(lab)}", "-uroot", "--skip-comments"]
    return run(["mariadb-dump", *options, database])


def _socket(lab: Lab) -> str:
    # Its path must fit into 107 bytes, which a checkout's may not.
    return f"{lab.runtime}/mysqld.sock"
