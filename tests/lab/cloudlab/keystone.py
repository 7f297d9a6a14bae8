"""Keystone: identities, roles, and the service catalogue."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any

from . import database
from .process import LabError, run, wait_until
from .setup import cloud_environment
from .state import Lab

# -P: the folder of this package holds a module that is named like the service.
SERVE = ["-P", str(Path(__file__).with_name("serve.py"))]


def up(lab: Lab) -> None:
    """Starts Keystone; creates everything in it when it is new."""
    venv = cloud_environment().require()
    folder = lab.path("etc", "keystone")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "keystone.conf").write_text(
        f"""[DEFAULT]
log_file = {lab.path("log", "keystone.log")}
[database]
connection = {lab.database_url("keystone")}
[token]
provider = fernet
expiration = 86400
[fernet_tokens]
key_repository = {folder}/fernet
[fernet_receipts]
key_repository = {folder}/fernet
[credential]
key_repository = {folder}/credential
[cache]
enabled = false
[identity]
password_hash_rounds = 4
"""
    )
    created = folder / ".created"
    new = False
    if not created.exists():
        _write_keys(folder)
        if database.load(lab, "keystone"):
            _move_endpoints(lab)
            catalogue_images(lab, False)
            created.touch()
        else:
            new = True
            _bootstrap(lab, [str(venv / "bin" / "keystone-manage"), "--config-file", str(folder / "keystone.conf")])
    argv = [str(venv / "bin" / "python"), *SERVE, "keystone", str(lab.keystone_port), str(folder)]
    lab.processes.start("keystone", argv)
    wait(lab)
    if new:
        _populate(Identity(lab), lab)
        database.keep(lab, "keystone")
        catalogue_images(lab, False)
        created.touch()


def catalogue_images(lab: Lab, there: bool) -> None:
    """Has the catalogue name the image service, or not: where it does, `openstack volume create` asks it."""
    database.sql(lab, f"update service set enabled = {str(there).lower()} where type = 'image'", "keystone")


def _bootstrap(lab: Lab, manage: list[str]) -> None:
    run([*manage, "db_sync"])
    url = lab.keystone_url
    run(
        [
            *manage,
            "bootstrap",
            "--bootstrap-password=admin",
            "--bootstrap-region-id=RegionOne",
            f"--bootstrap-admin-url={url}",
            f"--bootstrap-public-url={url}",
            f"--bootstrap-internal-url={url}",
        ]
    )


def _write_keys(folder: Path) -> None:
    """What `fernet_setup` and `credential_setup` would write, in seconds: a staged key and a primary one."""
    for repository in ("fernet", "credential"):
        (folder / repository).mkdir(mode=0o700, exist_ok=True)
        for number in ("0", "1"):
            path = folder / repository / number
            path.touch(0o600)
            path.write_bytes(base64.urlsafe_b64encode(os.urandom(32)))


def _move_endpoints(lab: Lab) -> None:
    """The catalogue that was kept names another lab's ports."""
    database.sql(
        lab,
        "update endpoint set url = case (select type from service where service.id = endpoint.service_id)"
        f" when 'identity' then '{lab.keystone_url}' when 'key-manager' then '{lab.barbican_url}'"
        f" when 'image' then '{lab.glance_url}' else '{lab.cinder_url}' end",
        "keystone",
    )


def credentials(lab: Lab, service: str) -> str:
    """The options with which a service of OpenStack logs in."""
    return f"""auth_url = {lab.keystone_url}
auth_type = password
user_domain_id = default
project_domain_id = default
project_name = service
username = {service}
password = {service}"""


def wait(lab: Lab) -> None:
    """Waits until the API answers."""
    wait_until("keystone", lambda: answers(lab.keystone_url), lambda: lab.processes.pid("keystone"))


def answers(url: str) -> bool:
    """Whether an API can be used."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        # Several versions to choose from.
        return error.code == 300
    except OSError:
        return False


def request(
    method: str,
    url: str,
    token: str | None = None,
    body: object = None,
    microversion: str | None = None,
    service_token: str | None = None,
) -> tuple[Any, Message]:
    """A REST request, with bytes or what becomes JSON; the decoded answer and its headers."""
    raw = isinstance(body, bytes)
    headers = {"Content-Type": "application/octet-stream" if raw else "application/json"}
    if service_token:
        headers["X-Service-Token"] = service_token
    if token:
        headers["X-Auth-Token"] = token
    if microversion:
        headers["OpenStack-API-Version"] = f"volume {microversion}"
    data = body if raw or body is None else json.dumps(body).encode()
    ask = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(ask, timeout=60) as answer:
            text = answer.read()
            return (json.loads(text) if text else None), answer.headers
    except urllib.error.HTTPError as error:
        raise LabError(f"{method} {url}: {error.code} {error.read().decode(errors='replace')}") from None
    except OSError as error:
        raise LabError(f"{method} {url}: {error}") from None


class Identity:
    """Keystone's API, as its administrator."""

    def __init__(self, lab: Lab, user: str = "admin", project: str | None = None) -> None:
        self.url = lab.keystone_url
        domain = {"id": "default"}
        login = {"user": {"name": user, "password": user, "domain": domain}}
        scope = {"project": {"name": project or user, "domain": domain}}
        auth = {"identity": {"methods": ["password"], "password": login}, "scope": scope}
        answer, headers = request("POST", f"{self.url}/auth/tokens", body={"auth": auth})
        self.token = headers["X-Subject-Token"]
        self.project = answer["token"]["project"]["id"]

    def ask(self, method: str, path: str, body: object = None) -> Any:
        return request(method, f"{self.url}{path}", self.token, body)[0]

    def create(self, kind: str, **fields: object) -> str:
        """Creates a thing of that kind, unless one of its name is there; its id."""
        if "name" in fields:
            listed = self.ask("GET", f"/{kind}s?name={fields['name']}")[f"{kind}s"]
            if listed:
                return str(listed[0]["id"])
        return str(self.ask("POST", f"/{kind}s", {kind: fields})[kind]["id"])


def _populate(identity: Identity, lab: Lab) -> None:
    roles = {name: identity.create("role", name=name) for name in ("admin", "member", "reader", "service")}
    service = identity.create("project", name="service", domain_id="default")
    demo = identity.create("project", name="demo", domain_id="default")
    for user, project, granted in (
        ("cinder", service, ("admin", "service")),
        ("barbican", service, ("admin", "service")),
        ("glance", service, ("admin", "service")),
        ("demo", demo, ("member", "reader")),
    ):
        account = identity.create("user", name=user, password=user, domain_id="default")
        for role in granted:
            identity.ask("PUT", f"/projects/{project}/users/{account}/roles/{roles[role]}")
    for name, kind, url in (
        ("cinderv3", "volumev3", lab.cinder_url),
        ("cinder", "block-storage", lab.cinder_url),
        ("barbican", "key-manager", lab.barbican_url),
        ("glance", "image", lab.glance_url),
    ):
        catalogued = identity.create("service", name=name, type=kind)
        for interface in ("public", "internal", "admin"):
            identity.create(
                "endpoint",
                service_id=catalogued,
                interface=interface,
                url=url,
                region_id="RegionOne",
            )
