#!/usr/bin/env python3
"""Writes target/cinderblock.cdx.json, the bill of materials of both programs (CycloneDX 1.5).

Every package of Cargo.lock is in it: `required` where the programs are built of it on Linux, `excluded` where
only tests or other systems want it. The same sources give the same bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu")
PROGRAMS = ("cinder-backup", "cinderblock")

Package = dict[str, Any]


def cargo(*words: str) -> str:
    command = ["cargo", *words, "--locked"]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def purl(package: Package) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


def built() -> set[str]:
    """What the programs are built of. `cargo metadata` would also name what features might bring."""
    words = ["tree", "-p", "cinderblock-service", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"]
    lines = [line for target in TARGETS for line in cargo(*words, "--target", target).splitlines()]
    named = (line.split()[:2] for line in lines)
    return {f"pkg:cargo/{name}@{version.removeprefix('v')}" for name, version in named}


def component(package: Package, licence: str, scope: str) -> Package:
    described = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "scope": scope,
        # The slash is the older way to say so.
        "licenses": [{"expression": licence.replace("/", " OR ")}],
        "purl": purl(package),
    }
    if "checksum" in package:
        described["hashes"] = [{"alg": "SHA-256", "content": package["checksum"]}]
    return described


def dependencies(packages: list[Package]) -> list[Package]:
    """Who wants whom. Cargo.lock gives a name alone where there is only one of that name."""
    by_name = {package["name"]: purl(package) for package in packages}

    def reference(wanted: str) -> str:
        name, *version = wanted.split()
        return f"pkg:cargo/{name}@{version[0]}" if version else by_name[name]

    wants = {purl(package): sorted(map(reference, package.get("dependencies", []))) for package in packages}
    return [{"ref": ref, "dependsOn": wanted} for ref, wanted in wants.items()]


def bill() -> Package:
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    metadata = json.loads(cargo("metadata", "--format-version", "1"))
    licences = {purl(package): package["license"] for package in metadata["packages"]}
    required = built()
    components = [
        component(package, licences[purl(package)], "required" if purl(package) in required else "excluded")
        for package in packages
    ]
    service = next(package for package in packages if package["name"] == "cinderblock-service")
    product = {
        "type": "application",
        "bom-ref": "cinderblock",
        "name": "cinderblock",
        "version": service["version"],
        "licenses": [{"expression": licences[purl(service)]}],
        "components": [{"type": "application", "bom-ref": f"program {name}", "name": name} for name in PROGRAMS],
    }
    made_of = [{"ref": "cinderblock", "dependsOn": [purl(service)]}, *dependencies(packages)]
    content = {"metadata": {"component": product}, "components": components, "dependencies": made_of}
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{serial}", "version": 1, **content}


def check(text: str) -> None:
    """What a reader relies on."""
    bom = json.loads(text)
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    found = {part["purl"]: part for part in bom["components"]}
    missing = {purl(package) for package in packages} - set(found)
    assert not missing and len(found) == len(packages), f"not as Cargo.lock: {missing}"
    for package in packages:
        part = found[purl(package)]
        assert part["licenses"][0]["expression"], part
        own = "source" not in package
        assert own or part["hashes"][0]["content"] == package["checksum"], part
    known = {*found, "cinderblock"}
    for entry in bom["dependencies"]:
        assert known.issuperset([entry["ref"], *entry["dependsOn"]]), entry
    for name, scope in (("lapin", "required"), ("proptest", "excluded")):
        scopes = {part["scope"] for part in bom["components"] if part["name"] == name}
        assert scopes == {scope}, (name, scopes)


def main() -> None:
    path = ROOT / "target" / "cinderblock.cdx.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(bill(), indent=1) + "\n")
    check(path.read_text())
    parts = json.loads(path.read_text())["components"]
    required = sum(part["scope"] == "required" for part in parts)
    print(f"{path.relative_to(ROOT)}: {len(parts)} packages, {required} of them in the programs", file=sys.stderr)


main()
