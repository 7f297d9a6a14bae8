"""A service that uses oslo.messaging, on the other side of a test.

usage: peer.py URL serve|call [--host HOST] [--method METHOD] [--allow MODULE] [OPTION=VALUE...]

OPTIONs are those of [oslo_messaging_rabbit]. `serve` prints a line when it consumes, and stops at
the end of its input. `call` prints what came of the call as JSON.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile

import oslo_messaging
from oslo_config import cfg

TOPIC = "cinder-backup"
CONTEXT = {"request_id": "req-5e0f8e5c-0000-4000-8000-000000000002", "is_admin": True}
ARGUMENTS = {"number": 7, "text": "Grüße"}


class Endpoint:
    target = oslo_messaging.Target(version="2.4")

    def double(self, context, number, text):
        return {"double": 2 * number, "text": text, "request": context["request_id"]}

    def fail(self, context, number, text):
        from cinder import exception

        raise exception.InvalidBackup(reason=text)


def transport(arguments, directory):
    path = os.path.join(directory, "peer.conf")
    with open(path, "w") as file:
        print("[oslo_concurrency]", f"lock_path={directory}", sep="\n", file=file)
        print("[oslo_messaging_rabbit]", *arguments.options, sep="\n", file=file)
    # oslo.messaging registers a part of its options in this one only.
    cfg.CONF(["--config-file", path], project="peer")
    return oslo_messaging.get_rpc_transport(
        cfg.CONF, arguments.url, allowed_remote_exmods=arguments.allow
    )


def clean_up(messaging):
    messaging.cleanup()
    rabbit = cfg.CONF.oslo_messaging_rabbit
    if rabbit.use_queue_manager:
        counter = f"/dev/shm/{rabbit.hostname}_{rabbit.processname}_qmanager"
        pathlib.Path(counter).unlink(missing_ok=True)


def serve(arguments, messaging):
    target = oslo_messaging.Target(topic=TOPIC, server=arguments.host)
    server = oslo_messaging.get_rpc_server(messaging, target, [Endpoint()], executor="threading")
    server.start()
    print("serving", flush=True)
    sys.stdin.read()
    server.stop()
    server.wait()
    clean_up(messaging)


def call(arguments, messaging):
    target = oslo_messaging.Target(topic=TOPIC, server=arguments.host, version="2.4")
    client = oslo_messaging.get_rpc_client(messaging, target, timeout=30)
    try:
        outcome = {"result": client.call(CONTEXT, arguments.method, **ARGUMENTS)}
    except Exception as error:
        kind = type(error)
        outcome = {
            "class": kind.__name__,
            "parents": [parent.__name__ for parent in kind.__mro__],
            "message": str(error),
            "code": getattr(error, "code", None),
            "exc_type": getattr(error, "exc_type", None),
        }
    print(json.dumps(outcome), flush=True)
    clean_up(messaging)


parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("action", choices=["serve", "call"])
parser.add_argument("--host", default="tester")
parser.add_argument("--method", default="double")
parser.add_argument("--allow", action="append", default=[])
parser.add_argument("options", nargs="*")
arguments = parser.parse_intermixed_args()
with tempfile.TemporaryDirectory() as directory:
    action = {"serve": serve, "call": call}[arguments.action]
    action(arguments, transport(arguments, directory))
