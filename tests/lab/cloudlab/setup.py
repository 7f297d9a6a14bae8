"""What a lab needs on the machine: Debian's packages, and virtual environments with OpenStack."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from .process import LabError, run
from .state import NEWEST, REQUIREMENTS, cache, locked

PACKAGES = [
    "ceph-common",
    "ceph-mgr",
    "ceph-mon",
    "ceph-osd",
    "cryptsetup-bin",
    "mariadb-client",
    "mariadb-server",
    "openssl",
    "postgresql",
    "python3-netifaces",
    "python3-psycopg2",
    "python3-rados",
    "python3-rbd",
    "python3-venv",
    "qemu-utils",
    "rabbitmq-server",
]

# Debian's own, which sees Debian's bindings of librbd and libpq; any other on PATH does not.
PYTHON = "/usr/bin/python3"
POLICY = Path("/usr/sbin/policy-rc.d")


def setup(release: str = NEWEST) -> None:
    """Installs what is missing for labs with that Cinder; quick where nothing is."""
    with locked(cache() / "setup.lock"):
        _packages()
        for needed in sorted({release, NEWEST}):
            _environment(needed)


def check(release: str) -> None:
    """Says so where something is missing, before anything is started."""
    missing = _missing()
    if missing:
        raise LabError(f"These Debian packages are missing, run `lab setup`: {' '.join(missing)}")
    for needed in (release, NEWEST):
        require_environment(needed)


def _packages() -> None:
    missing = _missing()
    if not missing:
        return
    if os.geteuid() != 0:
        raise LabError("These Debian packages are missing; install them, or run this as root:\n  " + " ".join(missing))
    print("Installing " + " ".join(missing), flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], env=env)
    # The lab starts its own servers: Debian shall not start the machine's.
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], env=env)
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)


def _missing() -> list[str]:
    query = ["dpkg-query", "-W", "-f=${Package} ${Status}\\n", *PACKAGES]
    # Fails where any of them is unknown, and lists the others.
    shown = subprocess.run(query, capture_output=True, text=True).stdout.splitlines()
    return [package for package in PACKAGES if f"{package} install ok installed" not in shown]


def environment(release: str = NEWEST) -> Path:
    """The folder of the virtual environment for the pinned requirements of a release."""
    digest = hashlib.sha256((REQUIREMENTS / f"{release}.txt").read_bytes()).hexdigest()[:12]
    return cache() / f"venv-{digest}"


def require_environment(release: str = NEWEST) -> Path:
    """The virtual environment, which must be there."""
    path = environment(release)
    if not (path / ".complete").exists():
        raise LabError(f"The virtual environment is not there yet: run `lab setup --cinder {release}`")
    return path


def _environment(release: str) -> None:
    path = environment(release)
    if (path / ".complete").exists():
        return
    print(f"Creating the virtual environment with Cinder {release} (a minute or two, once)", flush=True)
    shutil.rmtree(path, ignore_errors=True)
    run([PYTHON, "-m", "venv", "--system-site-packages", str(path)])
    pip = [str(path / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--requirement", str(REQUIREMENTS / f"{release}.txt")])
    (path / ".complete").touch()
