#!/usr/bin/env bash
# Installs what building needs on Debian and Ubuntu: a C toolchain, the headers of librbd, librados and
# OpenSSL, and Rust. Does nothing where all of it is there. Elsewhere it installs Rust only, and names
# the packages.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(build-essential pkg-config libssl-dev librbd-dev librados-dev ca-certificates curl)
missing=()
if command -v dpkg-query >/dev/null; then
    for package in "${packages[@]}"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
else
    echo "This is not Debian. Building needs these packages, as Fedora and EL call them:" >&2
    echo "  gcc pkgconf-pkg-config openssl-devel librbd-devel librados-devel" >&2
fi
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "These Debian packages are missing: ${missing[*]}" >&2
        echo "Install them, or run this as root." >&2
        exit 1
    fi
    echo "Installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null; then
    [ -x "$HOME/.cargo/bin/cargo" ] || {
        echo "Installing Rust with rustup"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain none
    }
    PATH="$HOME/.cargo/bin:$PATH"
fi
# rust-toolchain.toml names the version; rustup fetches it here when it is missing.
cargo --version >/dev/null
