"""What a device's errors mean: tp_status of its own groups, and the errors of any SMP command."""

from __future__ import annotations

#: tp_status -> its text, as in TP_STATUS_TABLE
STATUS_TEXTS = {
    0: "ok",
    -1: "an argument is out of range",
    -2: "a buffer or package has the wrong size",
    -3: "a checksum does not match",
    -4: "not an adapter package of this format version",
    -5: "the adapter belongs to another base model",
    -6: "unknown command or object",
    -7: "this firmware was built without that",
    -8: "the adapter has other layers or another kind",
    -9: "the adapter's rank is above this firmware's",
    -10: "the SHA-256 of the package does not match",
    -11: "the signature is missing or wrong",
    -12: "its security counter is older than allowed",
    -13: "the package is incomplete",
    -14: "the package is larger than a slot",
    -15: "no free slot, or no room for another adapter",
    -16: "the flash memory reports a fault",
    -17: "no such adapter",
    -18: "nothing is there that this could act on",
    -19: "not an adapter id: a-z 0-9 . _ -, at most 15",
    -20: "the delta was made for another package",
    -21: "the flash memory holds a store of another geometry",
    -22: "the package is another adapter's",
}
#: TP_ERR_COMMAND
ERR_COMMAND = -6

#: MGMT_ERR_*, the errors of any command -> text
MGMT_TEXTS = {
    1: "unknown error",
    2: "no memory",
    3: "the request is malformed or incomplete",
    4: "it took too long",
    5: "no such entry",
    6: "not in this state",
    7: "the answer does not fit a message",
    8: "unknown command or object",
    9: "damaged data",
    10: "busy",
    11: "access denied",
    12: "the version of the protocol is too old",
    13: "the version of the protocol is too new",
}
#: MGMT_ERR_ENOTSUP
MGMT_UNSUPPORTED = 8


#: tp_status -> what to do about it
_HINTS = {
    -3: "send it again; pack the adapter again where that does not help",
    -4: "pack it with this tinypeft: tinypeft adapter pack",
    -5: "train or import the adapter for the model that the device runs, or flash that model",
    -8: "generate the project with the adapter's configuration, or pack the adapter for this one",
    -9: "generate the project with a larger --r, or train an adapter of a smaller rank",
    -10: "send it again; pack the adapter again where that does not help",
    -11: "sign it with the key whose public half the firmware has: tinypeft adapter sign",
    -12: "pack it with the newest --security-counter",
    -13: "send all of it; pack the adapter again where the file is short",
    -14: "pack an adapter of a smaller rank, or generate the project with a larger --r",
    -15: "delete an adapter: tinypeft adapter delete, or generate the project with more --adapters",
    -16: "try again; where it stays so the memory is worn out",
    -17: "see what is there: tinypeft adapter list",
    -18: "see what is there: tinypeft adapter list; only a candidate on test can be confirmed",
    -19: "choose another --id",
    -22: "push it under the id that it has: tinypeft adapter inspect",
    -21: "erase the storage, or flash the firmware that wrote it",
    -20: "make the delta from the package that the device has: tinypeft adapter pull, then diff",
}


def hint_of(status: int) -> str | None:
    """What to do about a tp_status; None where that depends."""
    return _HINTS.get(status)


def status_text(status: int) -> str:
    """The text of a tp_status, as tp_status_text() gives it."""
    return STATUS_TEXTS.get(status, "unknown status")


def mgmt_text(rc: int) -> str:
    """The text of an error of any command."""
    return MGMT_TEXTS.get(rc, "unknown error")
