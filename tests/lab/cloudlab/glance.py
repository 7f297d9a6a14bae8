"""Glance, the image service: volumes that one can boot from are made of its images."""

from __future__ import annotations

import os

from . import database
from .keystone import SERVE, Identity, answers, catalogue_images, credentials, request
from .process import run, wait_until
from .setup import cloud_environment
from .state import Lab

NAME = "disk"


def up(lab: Lab) -> None:
    """Starts Glance; creates its schema when it is new."""
    venv = cloud_environment().require()
    folder = lab.path("etc", "glance")
    folder.mkdir(parents=True, exist_ok=True)
    conf = folder / "glance-api.conf"
    conf.write_text(_configuration(lab))
    if not lab.processes.record("glance") and not database.load(lab, "glance"):
        run([str(venv / "bin" / "glance-manage"), "--config-file", str(conf), "db_sync"])
        database.keep(lab, "glance")
    argv = [str(venv / "bin" / "python"), *SERVE, "glance", str(lab.glance_port), str(folder)]
    lab.processes.start("glance", argv, {"PYTHONWARNINGS": "ignore"})
    wait(lab)
    catalogue_images(lab, True)


def _configuration(lab: Lab) -> str:
    data = lab.path("data", "glance")
    for store in ("images", "staging", "tasks"):
        (data / store).mkdir(parents=True, exist_ok=True)
    return f"""[DEFAULT]
log_file = {lab.path("log", "glance.log")}
enabled_backends = images:file
worker_self_reference_url = {lab.glance_url}
[glance_store]
default_backend = images
[images]
filesystem_store_datadir = {data}/images
[os_glance_staging_store]
filesystem_store_datadir = {data}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {data}/tasks
[paste_deploy]
flavor = keystone
config_file = {cloud_environment().path}/etc/glance/glance-api-paste.ini
[database]
connection = {lab.database_url("glance")}
[keystone_authtoken]
www_authenticate_uri = {lab.keystone_url}
service_token_roles = service
service_token_roles_required = true
{credentials(lab, "glance")}
[oslo_concurrency]
lock_path = {data}
"""


def wait(lab: Lab) -> None:
    """Waits until the API answers."""
    wait_until("glance", lambda: answers(lab.glance_url), lambda: lab.processes.pid("glance"))


def image(lab: Lab) -> str:
    """The id of a public image, which is made where there is none: a disk that holds random bytes."""
    token = Identity(lab).token
    url = f"{lab.glance_url}/v2/images"
    for known in request("GET", f"{url}?name={NAME}&status=active", token)[0]["images"]:
        return str(known["id"])
    fields = {"name": NAME, "disk_format": "raw", "container_format": "bare", "visibility": "public"}
    made, _ = request("POST", url, token, fields)
    request("PUT", f"{url}/{made['id']}/file", token, os.urandom(1 << 20))
    return str(made["id"])
