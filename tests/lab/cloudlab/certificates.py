"""Certificates of a lab: an authority, and what it signs for a server and its clients."""

from __future__ import annotations

from pathlib import Path

from .process import run


def certify(folder: Path) -> None:
    """Makes an authority, certificates for a server on localhost and for its clients, and an authority
    that has signed nothing."""
    if (folder / "complete").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    request = ["openssl", "req", "-x509", *key, "-nodes", "-days", "365"]
    for name, subject in (("ca", "Lab"), ("other-ca", "Other")):
        run([*request, "-subj", f"/CN={subject}", "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"])
    authority = ["-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key"]
    for name, use in (("server", "serverAuth"), ("client", "clientAuth")):
        files = ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"]
        extensions = (f"extendedKeyUsage={use}", "subjectAltName=DNS:localhost", "basicConstraints=CA:FALSE")
        added = [word for extension in extensions for word in ("-addext", extension)]
        run([*request, *authority, *files, "-subj", f"/CN={name}", *added])
    (folder / "complete").touch()
