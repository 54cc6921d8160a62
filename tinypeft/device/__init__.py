"""Talking to a device: framing, checksums and `Device`, the typed client of the firmware's command server."""

from tinypeft.device.adapters import AdapterList, DeviceAdapters, StoredAdapter, StoredPackage
from tinypeft.device.client import Device
from tinypeft.device.crc import trace_crc32
from tinypeft.device.link import Transport
from tinypeft.device.protocol import Dump, Info, Run, Stats, TraceRecord
from tinypeft.device.runner import Runner

__all__ = [
    "AdapterList",
    "Device",
    "DeviceAdapters",
    "Dump",
    "Info",
    "Run",
    "Runner",
    "Stats",
    "StoredAdapter",
    "StoredPackage",
    "TraceRecord",
    "Transport",
    "trace_crc32",
]
