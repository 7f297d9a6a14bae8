"""What a lab needs on the machine: Debian's packages, and virtual environments with OpenStack."""

from __future__ import annotations

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Environment:
    """A virtual environment for pinned requirements, which all labs share."""

    requirements: Path
    holds: str
    sees_debians: bool = True

    @property
    def path(self) -> Path:
        """Its folder, whether or not it is there."""
        digest = hashlib.sha256(self.requirements.read_bytes()).hexdigest()[:12]
        return cache() / f"venv-{digest}"

    def require(self) -> Path:
        """Its folder, which must be there."""
        if not self._complete.exists():
            raise LabError(f"The virtual environment with {self.holds} is not there yet: run `lab setup`, see `--help`")
        return self.path

    def create(self) -> None:
        """Creates it; quick where it is there."""
        if self._complete.exists():
            return
        print(f"Creating the virtual environment with {self.holds} (a minute or two, once)", flush=True)
        shutil.rmtree(self.path, ignore_errors=True)
        run([PYTHON, "-m", "venv", *(["--system-site-packages"] if self.sees_debians else []), str(self.path)])
        pip = [str(self.path / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, "--requirement", str(self.requirements)])
        self._complete.touch()

    @property
    def _complete(self) -> Path:
        return self.path / ".complete"


TEMPEST = Environment(REQUIREMENTS / "tempest.txt", "Tempest", sees_debians=False)


def cloud_environment(release: str = NEWEST) -> Environment:
    """Cinder of a release; that of the newest has the rest of the cloud, too."""
    return Environment(REQUIREMENTS / f"{release}.txt", f"Cinder {release}")


def setup(release: str = NEWEST, tempest: bool = False) -> None:
    """Installs what is missing for labs with that Cinder; quick where nothing is."""
    with locked(cache() / "setup.lock"):
        _packages()
        for needed in sorted({release, NEWEST}):
            cloud_environment(needed).create()
        if tempest:
            TEMPEST.create()


def check(release: str) -> None:
    """Says so where something is missing, before anything is started."""
    missing = _missing()
    if missing:
        raise LabError(f"These Debian packages are missing, run `lab setup`: {' '.join(missing)}")
    for needed in (release, NEWEST):
        cloud_environment(needed).require()


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
