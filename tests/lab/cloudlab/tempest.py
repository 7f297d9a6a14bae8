"""Tempest, OpenStack's own integration tests, with Cinder's plugin: what they say of backups in a lab."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from . import cinder, glance
from .process import MARKER, LabError
from .setup import TEMPEST
from .state import Lab

# Every test of backups, in Tempest itself and in Cinder's plugin.
BACKUPS = "(volume|cinder).*[Bb]ackup"

SERVER = "boots a server, and the lab has no Nova"
BUG = "is skipped by its authors, for Launchpad's bug 2017110"
# What cannot run here, and why.
LEFT_OUT = {
    "tempest.api.volume.test_volumes_backup.VolumesBackupsTest.test_backup_create_attached_volume": SERVER,
    "tempest.api.volume.test_volumes_backup.VolumesBackupsTest.test_volume_backup_incremental": SERVER,
    "tempest.scenario.test_volume_backup_restore.TestVolumeBackupRestore.test_volume_backup_restore": SERVER,
    "cinder_tempest_plugin.api.volume.test_volume_backup.VolumesBackupsTest.test_incremental_backup": SERVER,
    "cinder_tempest_plugin.rbac.v3.test_backups.ProjectReaderTests33.test_create_backup": BUG,
    "cinder_tempest_plugin.rbac.v3.test_backups.ProjectReaderTests33.test_delete_backup": BUG,
    "cinder_tempest_plugin.rbac.v3.test_backups.ProjectReaderTests33.test_restore_backup": BUG,
    "cinder_tempest_plugin.rbac.v3.test_backups.ProjectReaderTests39.test_update_backup": BUG,
}


def run(lab: Lab, selection: str, concurrency: int) -> int:
    """Runs the tests whose names the expression finds, and prints what came of each; the exit code
    is not zero where one failed or none was found."""
    program = TEMPEST.require() / "bin" / "tempest"
    if not any(lab.processes.pid(worker) for worker in cinder.WORKERS):
        raise LabError("No worker runs in this lab: the tests would wait for one in vain")
    glance.up(lab)
    folder = lab.path("data", "tempest")
    # What an earlier run has left names the environment of that time.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    conf = folder / "tempest.conf"
    conf.write_text(_configuration(lab, folder))
    for name, reason in LEFT_OUT.items():
        if re.search(selection, name):
            print(f"Left out: {name} {reason}", flush=True)
    left_out = "|".join(rf"^{re.escape(name)}\[" for name in LEFT_OUT)
    argv = [str(program), "run", "--config-file", str(conf), "--regex", selection, "--exclude-regex", left_out]
    argv += ["--concurrency", str(concurrency), "--slowest"]
    return subprocess.run(argv, cwd=folder, env={**os.environ, MARKER: str(lab.dir)}).returncode


def _configuration(lab: Lab, folder: Path) -> str:
    # Without Neutron, classes with a test that boots a server are skipped as a whole. Networks are not
    # created; what is asked for when a class ends, the security groups of its project, must not be found,
    # and that is what Keystone says of them.
    return f"""[DEFAULT]
debug = true
log_file = {lab.path("log", "tempest.log")}
[oslo_concurrency]
lock_path = {folder}/lock
[auth]
admin_username = admin
admin_password = admin
admin_project_name = admin
create_isolated_networks = false
[identity]
uri_v3 = {lab.keystone_url}
region = RegionOne
[network]
catalog_type = identity
[service_available]
cinder = true
glance = true
neutron = true
nova = false
swift = false
[enforce_scope]
cinder = true
[service-clients]
# A machine that has much else to do answers late.
http_timeout = 300
[compute]
image_ref = {glance.image(lab)}
[volume]
min_microversion = 3.0
max_microversion = latest
volume_size = 1
[volume-feature-enabled]
backup = true
concurrency_tests = true
"""
