"""Talking to a device: framing, checksums and `Device`, the typed client of the firmware's command server."""

from tinypeft.device.client import Device, Dump, Info, Run, Stats, TraceRecord, Transport
from tinypeft.device.crc import trace_crc32

__all__ = ["Device", "Dump", "Info", "Run", "Stats", "TraceRecord", "Transport", "trace_crc32"]
