"""Attaches and detaches volumes with os-brick, for a worker that is no Python.

Standard input brings a request as a line of JSON, standard output takes the answer as another:
{"result": ...}, {"error": "why"}, or {"unavailable": "why"} where there is no os-brick. Standard error
takes the log.
"""

import sys

# Nothing is imported from the folder in which the worker happens to be.
sys.path[:] = [folder for folder in sys.path if folder]

import json
import logging
import os
import shlex


def prepare(request):
    """Tells os-brick what Cinder's services tell it: their options, and how to become root."""
    import os_brick
    from os_brick.initiator import connector
    from oslo_concurrency import lockutils  # noqa: F401, declares [oslo_concurrency]
    from oslo_config import cfg
    from oslo_privsep import priv_context

    # Other options refer to these.
    for name in ("state_path", "host", "my_ip"):
        cfg.CONF.register_opt(cfg.StrOpt(name, default=request[name]))
    files = [word for path in request["config_files"] for word in ("--config-file", path)]
    cfg.CONF(files, project="cinder", prog="cinder-backup")
    priv_context.init(root_helper=request["root_helper"])
    os_brick.setup(cfg.CONF)
    return connector


def carry_out(connector, request):
    command = request["command"]
    # os-brick takes it as a shell would, and takes it apart again.
    root_helper = shlex.join(request["root_helper"])
    multipath = request["multipath"]
    if command == "connector_properties":
        enforce = request["enforce_multipath"]
        return connector.get_connector_properties(root_helper, request["my_ip"], multipath, enforce)
    connection = request["connection"]
    brick = connector.InitiatorConnector.factory(
        connection["driver_volume_type"],
        root_helper,
        use_multipath=multipath,
        device_scan_attempts=request["scan_tries"],
        conn=connection,
        expect_raw_disk=True,
    )
    properties = connection["data"]
    if command == "connect":
        device = brick.connect_volume(properties)
        try:
            if not isinstance(device["path"], str):
                raise ValueError("the volume is attached as something that has no path")
            json.dumps(device)
        except Exception:
            brick.disconnect_volume(properties, device, force=True, ignore_errors=True)
            raise
        return device
    if command == "disconnect":
        ignore = request["ignore_errors"]
        brick.disconnect_volume(properties, request["device"], force=True, ignore_errors=ignore)
        return None
    raise ValueError(f"there is no command {command}")


def answer(request):
    try:
        connector = prepare(request)
    except ImportError as error:
        return {"unavailable": str(error)}
    from oslo_utils import strutils

    try:
        return {"result": carry_out(connector, request)}
    except Exception as error:
        logging.debug("%s failed", request["command"], exc_info=True)
        return {"error": strutils.mask_password(f"{type(error).__name__}: {error}")}


def main():
    answers = os.fdopen(os.dup(1), "w")
    # What a library prints is no answer.
    os.dup2(2, 1)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    try:
        told = answer(json.loads(sys.stdin.readline()))
    except Exception as error:
        told = {"error": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(told) + "\n")
    answers.flush()


main()
