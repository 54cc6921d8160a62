"""A running device on a pseudo-terminal: to any serial program, such as an SMP client, a board on a serial port."""

from __future__ import annotations

import contextlib
import os
import select
import time
import tty
from collections.abc import Iterator
from pathlib import Path

from tinypeft.device.link import NoAnswer, Transport
from tinypeft.errors import OutputError

#: Seconds that each side is waited for in turn
_TURN = 0.002
#: Seconds after which what nobody reads is dropped, as on a serial line
READ_LIMIT = 1.0
_CHUNK = 65536


class Terminal:
    """A pseudo-terminal whose other end, `port`, is for a client to open. `link`: a symbolic link to that."""

    def __init__(self, link: Path | None = None):
        self._ours, self._theirs = os.openpty()
        tty.setraw(self._theirs)  # stays open: the port is there while no client is
        os.set_blocking(self._ours, False)
        self.port = os.ttyname(self._theirs)
        self._link = link

    def serve(self, transport: Transport) -> None:
        """Carry bytes both ways, until the device is gone (DeviceError) or an exception ends it."""
        while True:
            ready, _, _ = select.select([self._ours], [], [], _TURN)
            if ready:
                transport.send(os.read(self._ours, _CHUNK))
            with contextlib.suppress(NoAnswer):
                self._write(transport.receive(_TURN))

    def _write(self, data: bytes) -> None:
        deadline = time.monotonic() + READ_LIMIT
        while data and time.monotonic() < deadline:
            _, ready, _ = select.select([], [self._ours], [], READ_LIMIT)
            if ready:
                written = os.write(self._ours, data)
                data, deadline = data[written:], time.monotonic() + READ_LIMIT

    def close(self) -> None:
        """Take the port away."""
        os.close(self._theirs)
        os.close(self._ours)
        if self._link is not None and self._link.is_symlink() and os.readlink(self._link) == self.port:
            self._link.unlink()

    def make_link(self) -> None:
        """Let `link` name the port; OutputError where something else is there, or it cannot be made."""
        if self._link is None:
            return
        try:
            if self._link.is_symlink():
                self._link.unlink()
            self._link.symlink_to(self.port)
        except OSError as error:
            link, self._link = self._link, None
            raise OutputError(f"cannot make the link {link}: {error.strerror}", "name another path") from error


@contextlib.contextmanager
def open_terminal(link: Path | None = None) -> Iterator[Terminal]:
    """A `Terminal` for the time of a `with` block."""
    terminal = Terminal(link)
    try:
        terminal.make_link()
        yield terminal
    finally:
        terminal.close()
