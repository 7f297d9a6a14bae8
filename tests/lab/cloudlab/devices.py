"""Volumes that are not in Ceph: two back ends of a driver of the lab's own."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

from .process import run
from .state import Lab

DRIVERS = Path(__file__).parent.parent / "drivers"

# Volume types and back ends have these names: block devices, of which a clone is made while they are in
# use, and files on a share, of which a snapshot is made.
BACKENDS = ("devices", "shares")


def folder(lab: Lab) -> Path:
    """Where the volumes' files are."""
    return lab.path("data", "volume-files")


def environment() -> dict[str, str]:
    """With which cinder-volume finds the driver."""
    return {"PYTHONPATH": str(DRIVERS)}


def options(lab: Lab) -> str:
    """The back ends' part of cinder.conf."""
    folder(lab).mkdir(parents=True, exist_ok=True)
    sections = [
        f"""[{name}]
volume_driver = lab_volumes.LabVolumes
volume_backend_name = {name}
lab_folder = {folder(lab)}
lab_mounts = {_mounts(lab)}
lab_share = {name == "shares"}
backup_use_temp_snapshot = {name == "shares"}
"""
        for name in BACKENDS
    ]
    return "\n".join(sections)


def mount(lab: Lab) -> tuple[Path, Path]:
    """What is to be mounted where, so that os-brick finds the share mounted: this kernel may know no NFS."""
    from_here = hashlib.md5(b"lab.example:/volumes", usedforsecurity=False).hexdigest()
    point = _mounts(lab) / from_here
    point.mkdir(parents=True, exist_ok=True)
    folder(lab).mkdir(parents=True, exist_ok=True)
    return folder(lab), point


def _mounts(lab: Lab) -> Path:
    return lab.path("data", "mounts")


def release(lab: Lab) -> None:
    """Detaches the loop devices that a lab has left."""
    if not lab.devices:
        return
    listed = run(["losetup", "--json", "--list"])
    for entry in json.loads(listed)["loopdevices"] if listed.strip() else []:
        # The file may be gone already.
        if entry["back-file"].startswith(f"{folder(lab)}/"):
            subprocess.run(["losetup", "--detach", entry["name"]], check=False)
