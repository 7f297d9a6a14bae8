"""Barbican, the key manager: it holds the keys of encrypted volumes."""

from __future__ import annotations

import base64
import os

from . import database
from .keystone import SERVE, answers, credentials
from .process import run, wait_until
from .setup import cloud_environment
from .state import Lab


def up(lab: Lab) -> None:
    """Starts Barbican; creates its schema when it is new."""
    venv = cloud_environment().require()
    folder = lab.path("etc", "barbican")
    folder.mkdir(parents=True, exist_ok=True)
    conf = folder / "barbican.conf"
    if not conf.exists():
        conf.write_text(_configuration(lab))
    environment = _environment(lab)
    if not lab.processes.record("barbican") and not database.load(lab, "barbican"):
        run([str(venv / "bin" / "barbican-manage"), "db", "upgrade"], env={**os.environ, **environment})
        database.keep(lab, "barbican")
    paste = str(venv / "etc" / "barbican" / "barbican-api-paste.ini")
    argv = [str(venv / "bin" / "python"), *SERVE, "barbican", str(lab.barbican_port), paste]
    lab.processes.start("barbican", argv, environment)
    wait(lab)


def _environment(lab: Lab) -> dict[str, str]:
    # Barbican takes no --config-file: it looks in its user's folder, and in the machine's /etc.
    return {"HOME": str(lab.path("etc", "barbican")), "PYTHONWARNINGS": "ignore"}


def _configuration(lab: Lab) -> str:
    key = base64.b64encode(os.urandom(32)).decode()
    return f"""[DEFAULT]
log_file = {lab.path("log", "barbican.log")}
host_href = {lab.barbican_url}
[database]
connection = {lab.database_url("barbican")}
[keystone_authtoken]
www_authenticate_uri = {lab.keystone_url}
service_token_roles = service
service_token_roles_required = true
{credentials(lab, "barbican")}
[simple_crypto_plugin]
kek = {key}
"""


def wait(lab: Lab) -> None:
    """Waits until the API answers."""
    wait_until("barbican", lambda: answers(lab.barbican_url), lambda: lab.processes.pid("barbican"))
