"""The checksums of tp_crc.h: CRC-16/XMODEM of a frame, and the CRC-32 that a traced output is reported with."""

import binascii
import struct
import zlib

import numpy as np


def crc16_xmodem(data: bytes) -> int:
    """CRC-16/XMODEM: polynomial 0x1021, initial value 0; of b"123456789" 0x31C3."""
    return binascii.crc_hqx(data, 0)


def trace_crc32(values: np.ndarray, exponent: int = 0) -> int:
    """The CRC-32 a device reports for an output: of the elements' little-endian bytes, then of the int32 exponent.

    For block floating point pass the int16 mantissas and their exponent; any other value has exponent 0.
    """
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return zlib.crc32(struct.pack("<i", exponent), zlib.crc32(little.tobytes()))
