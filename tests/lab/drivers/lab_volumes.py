"""A volume driver for storages that are not Ceph: files in a folder, which hosts reach as block devices
(loop devices) or on a share.

It behaves as real storages do where backups can tell the difference: a volume that is connected
cannot be deleted, and a new one shows what its storage held before.
"""

import json
import os
import subprocess

from cinder import exception
from cinder.volume import driver
from oslo_config import cfg

OPTIONS = [
    cfg.StrOpt("lab_folder", help="Where the files are"),
    cfg.BoolOpt("lab_share", default=False, help="Whether hosts reach them on a share, not as devices"),
    cfg.StrOpt("lab_mounts", help="Where hosts mount shares"),
]
cfg.CONF.register_opts(OPTIONS)

SHARE = "lab.example:/volumes"
STALE = (24 << 20, b"\xa5" * (8 << 20))


class LabVolumes(driver.VolumeDriver):
    VERSION = "1"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTIONS)

    def check_for_setup_error(self):
        os.makedirs(self.configuration.lab_folder, exist_ok=True)

    def _update_volume_stats(self):
        self._stats = {
            "volume_backend_name": self.configuration.volume_backend_name,
            "vendor_name": "lab",
            "driver_version": self.VERSION,
            "storage_protocol": "nfs" if self.configuration.lab_share else "local",
            "total_capacity_gb": 1000,
            "free_capacity_gb": 1000,
            "reserved_percentage": 0,
        }

    def _path(self, resource):
        return os.path.join(self.configuration.lab_folder, resource.name)

    def _copy(self, source, target, size):
        subprocess.run(["cp", "--sparse=always", self._path(source), self._path(target)], check=True)
        os.truncate(self._path(target), size << 30)

    def create_volume(self, volume):
        with open(self._path(volume), "wb") as file:
            file.truncate(volume.size << 30)
            if not self.configuration.lab_share:
                offset, held = STALE
                file.seek(offset)
                file.write(held)

    def create_cloned_volume(self, volume, src_vref):
        self._copy(src_vref, volume, volume.size)

    def create_volume_from_snapshot(self, volume, snapshot):
        self._copy(snapshot, volume, volume.size)

    def create_snapshot(self, snapshot):
        self._copy(snapshot.volume, snapshot, snapshot.volume_size)

    def extend_volume(self, volume, new_size):
        os.truncate(self._path(volume), new_size << 30)

    def delete_volume(self, volume):
        self._delete(volume)

    def delete_snapshot(self, snapshot):
        self._delete(snapshot)

    def _delete(self, resource):
        if self._devices(resource):
            raise exception.VolumeIsBusy(volume_name=resource.name)
        if os.path.exists(self._path(resource)):
            os.remove(self._path(resource))

    def _devices(self, resource):
        listed = subprocess.run(
            ["losetup", "--json", "--list", "--associated", self._path(resource)], check=True, capture_output=True, text=True
        ).stdout
        return [entry["name"] for entry in json.loads(listed)["loopdevices"]] if listed.strip() else []

    def _connect(self, resource, connector, *options):
        if self.configuration.lab_share:
            data = {"export": SHARE, "name": resource.name, "options": None, "format": "raw"}
            base = self.configuration.lab_mounts
            return {"driver_volume_type": "nfs", "data": data, "mount_point_base": base}
        devices = self._devices(resource)
        if not devices:
            made = subprocess.run(
                ["losetup", "--find", "--show", *options, self._path(resource)],
                check=True, capture_output=True, text=True,
            ).stdout
            devices = [made.strip()]
        return {"driver_volume_type": "local", "data": {"device_path": devices[0]}}

    def _disconnect(self, resource):
        for device in self._devices(resource):
            subprocess.run(["losetup", "--detach", device], check=True)

    def validate_connector(self, connector):
        # os-brick tells this of every host. The lab's hypervisor is none of its.
        if "nvme_native_multipath" not in connector and connector.get("host") != "lab-compute":
            raise exception.InvalidConnectorException(missing="nvme_native_multipath")

    def initialize_connection(self, volume, connector):
        if connector.get("host") == "lab-compute":
            return {"driver_volume_type": "local", "data": {"device_path": self._path(volume)}}
        return self._connect(volume, connector)

    def terminate_connection(self, volume, connector, **kwargs):
        self._disconnect(volume)

    def initialize_connection_snapshot(self, snapshot, connector):
        return self._connect(snapshot, connector, "--read-only")

    def terminate_connection_snapshot(self, snapshot, connector, **kwargs):
        self._disconnect(snapshot)

    def ensure_export(self, context, volume):
        pass

    def create_export(self, context, volume, connector):
        pass

    def remove_export(self, context, volume):
        pass

    def create_export_snapshot(self, context, snapshot, connector):
        pass

    def remove_export_snapshot(self, context, snapshot):
        pass

    def secure_file_operations_enabled(self):
        return False
