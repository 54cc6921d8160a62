"""Talking to a device: framing, checksums and `Device`, the typed client of the firmware's command server."""

from tinypeft.device.client import Device
from tinypeft.device.crc import trace_crc32
from tinypeft.device.link import Transport
from tinypeft.device.protocol import Dump, Info, Run, Stats, TraceRecord
from tinypeft.device.runner import Runner

__all__ = ["Device", "Dump", "Info", "Run", "Runner", "Stats", "TraceRecord", "Transport", "trace_crc32"]
