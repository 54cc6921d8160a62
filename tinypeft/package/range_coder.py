"""An adaptive binary range coder: bits under their models in, bytes out, and back.

As in LZMA, a model is the probability of a 0 in 11 bits and moves towards each bit that comes. Here it moves further at
first, since files are short.
"""

from __future__ import annotations

from collections.abc import Iterator

_BITS = 11
_TOP = 1 << 24
_MASK = 0xFFFFFFFF
#: the shifts by which a model moves: the first time, and from then on up to the last
FIRST_SHIFT, LAST_SHIFT = 1, 5


class BitModel:
    """The probability that a bit is 0, of which `shift` says how fast it moves."""

    __slots__ = ("probability", "shift")

    def __init__(self) -> None:
        self.probability, self.shift = 1 << (_BITS - 1), FIRST_SHIFT

    def learn(self, bit: int) -> None:
        """Move towards `bit`."""
        if bit:
            self.probability -= self.probability >> self.shift
        else:
            self.probability += ((1 << _BITS) - self.probability) >> self.shift
        self.shift = min(self.shift + 1, LAST_SHIFT)


class RangeEncoder:
    """Bits in; `finish` gives the bytes: as many as the decoder takes for those bits, not one more."""

    def __init__(self) -> None:
        self._low, self._range, self._bytes = 0, _MASK, bytearray()

    def encode(self, model: BitModel, bit: int) -> None:
        """Append a bit, and let its model learn."""
        while self._range < _TOP:
            self._range <<= 8
            self._shift()
        bound = (self._range >> _BITS) * model.probability
        if bit:
            self._low += bound
            self._range -= bound
            if self._low > _MASK:
                self._carry()
        else:
            self._range = bound
        model.learn(bit)

    def finish(self) -> bytes:
        """The bytes of all bits so far."""
        for _ in range(4):
            self._shift()
        return bytes(self._bytes)

    def _shift(self) -> None:
        self._bytes.append(self._low >> 24)
        self._low = self._low << 8 & _MASK

    def _carry(self) -> None:
        self._low &= _MASK
        at = len(self._bytes) - 1
        while self._bytes[at] == 0xFF:
            self._bytes[at] = 0
            at -= 1
        self._bytes[at] += 1


class RangeDecoder:
    """Bytes in, their bits out. `decode` raises StopIteration where the bytes end before the bits."""

    def __init__(self, data: Iterator[int]) -> None:
        self._data, self._range, self._code = data, 0, 0

    def decode(self, model: BitModel) -> int:
        """The next bit, from which its model learns."""
        if self._range == 0:
            self._range = _MASK
            for _ in range(4):
                self._code = self._code << 8 | next(self._data)
        while self._range < _TOP:
            self._range <<= 8
            self._code = self._code << 8 | next(self._data)
        bound = (self._range >> _BITS) * model.probability
        bit = int(self._code >= bound)
        if bit:
            self._code -= bound
            self._range -= bound
        else:
            self._range = bound
        model.learn(bit)
        return bit
