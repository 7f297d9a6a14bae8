#!/usr/bin/python3
"""Writes random data into a volume of the lab.

fill-volume.py CEPH_CONF VOLUME_ID OFFSET_MIB LENGTH_MIB [OFFSET_MIB LENGTH_MIB ...]
"""

import os
import sys

import rados
import rbd

MIB = 1 << 20


def main(conf: str, volume: str, *numbers: str) -> None:
    ranges = list(zip(map(int, numbers[::2]), map(int, numbers[1::2]), strict=True))
    with rados.Rados(conffile=conf) as cluster, cluster.open_ioctx("volumes") as pool:
        with rbd.Image(pool, f"volume-{volume}") as image:
            for offset, length in ranges:
                for mib in range(offset, offset + length):
                    image.write(os.urandom(MIB), mib * MIB)


if __name__ == "__main__":
    if len(sys.argv) < 5 or len(sys.argv) % 2 == 0:
        sys.exit(__doc__)
    main(*sys.argv[1:])
