"""The API extensions that this server honours; clients choose their ways by these names.

A name is listed only where its whole behaviour is there: advertising too much breaks clients more
than advertising too little. Source: LXD docs, "API extensions".
"""

from __future__ import annotations

_LISTS = {
    "instances": "/1.0/instances beside /1.0/containers (daemon.routes.instances)",
    "container_full": "recursion=2 (services.views)",
    "instance_get_full": "recursion=1 of one instance (services.instances)",
    "api_filtering": "filter= of lists (daemon.filters)",
    "instance_all_projects": "all-projects= (daemon.http)",
    "instance_bulk_state_change": "PUT /1.0/instances (services.bulk)",
    "etag": "ETag and If-Match (daemon.http)",
    "patch": "PATCH of every object that has PUT (daemon.routes)",
    "usedby_consistency": "used_by are URLs (services)",
    "profile_usedby": "used_by of profiles (services.profiles)",
    "entity_description": "description of instances, profiles, networks, pools (api)",
}
_EVENTS = {
    "event_lifecycle": "type lifecycle (events.lifecycle)",
    "event_location": "location of events (events.bus)",
    "event_project": "project of events (events.bus)",
    "operation_description": "description of operations (operations.registry)",
}
_INSTANCES = {
    "console": "attach and log (services.console)",
    "container_exec_recording": "record-output (services.exec)",
    "container_exec_signal_handling": "signals on the control socket (services.exec)",
    "container_exec_user_group_cwd": "user, group, cwd (services.exec)",
    "backup_compression": "backups.compression_algorithm (services.backups)",
    "backup_compression_algorithm": "compression_algorithm of backups (services.backups)",
    "backup_override_name": "X-LXD-name of imports (services.imports)",
    "container_backup": "backups, exports, imports (services.backups, services.imports)",
    "container_backup_override_pool": "X-LXD-pool of imports (services.imports)",
    "container_cpu_time": "cpu.usage of the state (services.views)",
    "container_edit_metadata": "metadata and templates (services.metadata)",
    "devlxd_events": "/1.0/events of the guest API (services.guests)",
    "devlxd_images": "security.devlxd.images (services.guests)",
    "instance_ready_state": "PATCH /1.0 of the guest API, Ready (services.guests)",
    "restrict_devlxd": "security.devlxd (services.guests, instances.spec)",
    "container_disk_shift": "shift of disks (instances.devices.disk)",
    "container_host_shutdown_timeout": "boot.host_shutdown_timeout (services.startup)",
    "container_image_properties": "image.* of instances (services.creation)",
    "container_last_used_at": "last_used_at (services.store)",
    "container_protection_delete": "security.protection.delete (services.instances)",
    "container_raw_mount": "raw.mount.options (instances.devices.disk)",
    "container_stateless_copy": "copies (services.creation)",
    "container_stop_priority": "boot.stop.priority (instances.boot)",
    "directory_manipulation": "directories through the files API (services.files)",
    "file_append": "X-LXD-write (services.files)",
    "file_delete": "DELETE of files (services.files)",
    "file_get_symlink": "links are not followed (services.files)",
    "file_symlinks": "X-LXD-type symlink (services.files)",
    "instance_file_head": "HEAD of files (services.files)",
    "id_map": "security.idmap.isolated and size (instances.idmaps)",
    "id_map_base": "security.idmap.base (instances.idmaps)",
    "id_map_current": "volatile.idmap.current (services.starting)",
    "instance_nic_network": "network= of nics (instances.devices.nic)",
    "kernel_limits": "limits.kernel.* (instances.rlimits)",
    "linux_sysctl": "linux.sysctl.* (instances.spec)",
    "unix_device_rename": "source of unix-char and unix-block (instances.devices.unix)",
}
_SNAPSHOTS = {
    "container_incremental_copy": "refresh of copies (services.copies)",
    "container_only_migration": "instance_only of copies (services.copies)",
    "snapshot_expiry": "expires_at, snapshots.expiry (services.snapshots)",
    "snapshot_expiry_creation": "expires_at of POST (services.snapshots)",
    "snapshot_schedule_aliases": "@daily and others (instances.snapshots)",
    "snapshot_scheduling": "snapshots.schedule (services.schedule)",
}
_IMAGES = {
    "image_compression_algorithm": "compression_algorithm of publish (services.publish)",
    "image_force_refresh": "POST of refresh (services.image_upkeep)",
    "image_source_project": "project of sources of protocol lxd (services.image_sources)",
    "images_default_architecture": "images.default_architecture (services.image_sources)",
    "image_create_aliases": "aliases of POST (services.images)",
    "image_profiles": "profiles of images (services.images)",
    "image_types": "type of images (services.images)",
}
_NETWORKS_AND_STORAGE = {
    "network": "bridges (services.networks)",
    "network_leases": "leases (services.networks)",
    "network_state": "state (services.networks)",
    "storage": "pools (services.storage)",
    "storage_btrfs_mount_options": "btrfs.mount_options (storage.drivers.btrfs_source)",
    "storage_api_volume_rename": "POST of a custom volume (services.volumes)",
    "storage_api_volume_snapshots": "snapshots of custom volumes (services.volume_snapshots)",
    "storage_api_local_volume_handling": "copy and move between pools (services.volume_copies)",
    "storage_shifted": "security.shifted (services.disks)",
    "storage_unmapped": "security.unmapped (services.disks)",
    "storage_volumes_created_at": "created_at of volumes (services.volume_views)",
    "custom_block_volumes": "content type block (services.disks)",
    "custom_volume_backup": "backups of custom volumes (services.volume_backups)",
    "custom_volume_iso": "content type iso (services.volume_imports)",
    "custom_volume_refresh": "refresh of copies (services.volume_copies)",
    "custom_volume_snapshot_expiry": "expires_at of snapshots (services.volume_snapshots)",
    "volume_snapshot_scheduling": "snapshots.schedule of volumes (services.volume_schedule)",
    "storage_volume_state": "state of volumes (services.volumes)",
    "storage_volatile_initial_source": "volatile.initial_source (storage.pool)",
}
_SERVER = {
    "api_os": "environment.os_name, os_version (services.environment)",
    "firewall_driver": "environment.firewall (services.environment)",
    "kernel_features": "environment.kernel_features (services.environment)",
    "lxc_features": "environment.lxc_features (services.environment)",
    "server_supported_storage_drivers": "environment.storage_supported_drivers",
    "resources": "/1.0/resources and those of pools (services.hardware, services.storage)",
    "resources_cpu_core_die": "services.hardware",
    "resources_cpu_socket": "services.hardware",
    "resources_cpu_threads_numa": "services.hardware",
    "resources_gpu": "services.hardware",
    "resources_numa": "services.hardware",
    "resources_system": "services.hardware",
    "resources_usb_pci": "services.hardware",
    "resources_v2": "services.hardware",
    "warnings": "/1.0/warnings (services.server)",
}
#: lxpy's own, in names that LXD has not
_OWN = {
    "lxpy": "environment.lxpy_version (services.environment)",
    "lxpy_file_tree": "trees of files as tar, application/x-tar (services.trees)",
    "lxpy_snapshot_mount": "snapshots on the host's directories (services.snapshotmounts)",
    "lxpy_snapshot_files": "/1.0/instances/N/snapshots/S/files (services.files)",
    "lxpy_backup_target": "target of backups: a bucket of S3 (services.targets)",
    "lxpy_export_since": "since= of exports, and their import (services.increments)",
    "lxpy_export_stream": "GET export, imports as they come (services.exports, services.imports)",
    "lxpy_volume_export": "GET .../volumes/custom/NAME/export (services.volume_exports)",
    "lxpy_recover": "/internal/recover/database, start-over; bare (services.recovery)",
    "lxpy_snapshot_diff": "GET .../snapshots/NAME/diff (services.differences)",
    "lxpy_snapshot_keep": "snapshots.keep, lxpy.frozen_ms and .scheduled (services.schedule)",
    "lxpy_image_offers": "/1.0/lxpy/offers: images of simplestreams servers (services.images)",
    "lxpy_image_recipes": "protocols images and build, /1.0/lxpy/recipes (services.images)",
}

#: name -> what it is, and where it is honoured
EXTENSIONS: dict[str, str] = {
    **_LISTS,
    **_EVENTS,
    **_INSTANCES,
    **_SNAPSHOTS,
    **_IMAGES,
    **_NETWORKS_AND_STORAGE,
    **_SERVER,
    **_OWN,
}
