"""RabbitMQ without the machine's service: a node, an epmd and folders of its own."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from pathlib import Path

from .certificates import certify
from .process import run, wait_until
from .state import Lab

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
CONTROL = "/usr/lib/rabbitmq/bin/rabbitmqctl"


def up(lab: Lab) -> None:
    """Starts the broker and waits until its management interface answers."""
    home = lab.path("data", "rabbitmq")
    home.mkdir(parents=True, exist_ok=True)
    conf = lab.path("etc", "rabbitmq")
    conf.mkdir(parents=True, exist_ok=True)
    tls = conf / "tls"
    certify(tls)
    (conf / "rabbitmq.conf").write_text(
        f"""listeners.tcp.1 = 127.0.0.1:{lab.rabbit_port}
listeners.ssl.1 = 127.0.0.1:{lab.rabbit_tls_port}
ssl_options.cacertfile = {tls}/ca.pem
ssl_options.certfile = {tls}/server.pem
ssl_options.keyfile = {tls}/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = AMQPLAIN
auth_mechanisms.3 = EXTERNAL
ssl_cert_login_from = common_name
management.tcp.ip = 127.0.0.1
management.tcp.port = {lab.rabbit_management_port}
default_user = openstack
default_pass = openstack
loopback_users = none
disk_free_limit.absolute = 100MB
log.file.level = info
"""
    )
    (conf / "enabled_plugins").write_text("[rabbitmq_management,rabbitmq_auth_mechanism_ssl].\n")
    processes = lab.processes
    epmd = ["epmd", "-address", "127.0.0.1", "-port", str(lab.epmd_port)]
    processes.start("epmd", epmd, {"HOME": str(home)})
    processes.start("rabbitmq", [SERVER], environment(lab))
    wait(lab)


def wait(lab: Lab) -> None:
    """Waits until the management interface answers, which starts last."""
    wait_until("rabbitmq", lambda: _answers(lab), lambda: lab.processes.pid("rabbitmq"))


def control(lab: Lab, arguments: list[str]) -> None:
    """Has the broker do what only its command line can ask for, such as running out of memory."""
    run([CONTROL, "--quiet", *arguments], env={**os.environ, **environment(lab)})


def environment(lab: Lab) -> dict[str, str]:
    """What the server and its command-line tools take from the environment."""
    home, conf = lab.path("data", "rabbitmq"), lab.path("etc", "rabbitmq")
    return {
        "HOME": str(home),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(lab.epmd_port),
        "RABBITMQ_NODENAME": f"lab{lab.base}@localhost",
        "RABBITMQ_DIST_PORT": str(lab.rabbit_distribution_port),
        "RABBITMQ_MNESIA_BASE": str(home),
        "RABBITMQ_LOG_BASE": str(lab.path("log")),
        "RABBITMQ_LOGS": str(lab.path("log", "rabbitmq.log")),
        "RABBITMQ_CONFIG_FILE": str(conf / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(conf / "enabled_plugins"),
        "ERL_CRASH_DUMP": str(lab.path("log", "erl_crash.dump")),
        "RABBITMQ_PID_FILE": str(home / "pid"),
        # Two cores are shared with everything else: idle schedulers shall not spin.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none "
        "-kernel inet_dist_use_interface {127,0,0,1}",
    }


def management_url(lab: Lab) -> str:
    """The management API, with its credentials."""
    return f"http://openstack:openstack@127.0.0.1:{lab.rabbit_management_port}"


def add_virtual_host(lab: Lab, name: str) -> None:
    """Makes a virtual host, of which everything is allowed to the cloud's services."""
    _ask(lab, "PUT", f"vhosts/{name}", {})
    _ask(lab, "PUT", f"permissions/{name}/openstack", {"configure": ".*", "write": ".*", "read": ".*"})


def _answers(lab: Lab) -> bool:
    try:
        _ask(lab, "GET", "overview")
    except (urllib.error.URLError, OSError):
        return False
    return True


def _ask(lab: Lab, method: str, path: str, body: object = None) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{lab.rabbit_management_port}/api/{path}", method=method)
    credentials = base64.b64encode(b"openstack:openstack").decode()
    request.add_header("Authorization", f"Basic {credentials}")
    if body is not None:
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
    with urllib.request.urlopen(request, timeout=10):
        pass
