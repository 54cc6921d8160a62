"""Which of its three sets of code CMSIS-NN compiles for a core."""

from __future__ import annotations

from enum import StrEnum


class Extension(StrEnum):
    """The instructions that the library's code uses."""

    NONE = "C"
    DSP = "DSP"
    MVE = "MVE"


#: core, as boards name it -> the extension of which the library makes use
EXTENSIONS = {
    "cortex-m0": Extension.NONE,
    "cortex-m0plus": Extension.NONE,
    "cortex-m3": Extension.NONE,
    "cortex-m4": Extension.DSP,
    "cortex-m7": Extension.DSP,
    "cortex-m33": Extension.DSP,
    "cortex-m55": Extension.MVE,
    "cortex-m85": Extension.MVE,
}
