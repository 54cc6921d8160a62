"""The errors a user can meet; the command line prints the message, then what to try.

TinypeftError
├── ModelError      a model that cannot be read or has an unsupported operator
├── DataError       calibration, inputs or labels of the wrong kind
├── AdapterError    an adapter configuration or file that does not suit the model
├── BoardError      an unknown board or a faulty board file
├── KernelError     an unknown kernel backend, or one that has no kernel for an operation
├── FitError        the model needs more memory than the board has
├── ToolError       a compiler, emulator or library is missing or failed
├── DeviceError     a device answered wrongly, not at all, or with an error code
├── OutputError     an output folder that cannot be written
└── VerifyError     a stage produced an inconsistent graph or plan (a defect of tinypeft)
"""


class TinypeftError(Exception):
    """One clear message, and one thing to try.

    `message` names the item, the limit and the actual value; `hint` is the thing to try.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.message = message
        self.hint = hint


class ModelError(TinypeftError):
    """A model that cannot be read or has an unsupported operator."""


class DataError(TinypeftError):
    """Calibration, inputs or labels of the wrong kind."""


class AdapterError(TinypeftError):
    """An adapter configuration or file that does not suit the model."""


class BoardError(TinypeftError):
    """An unknown board or a faulty board file."""


class KernelError(TinypeftError):
    """An unknown kernel backend, or one that has no kernel for an operation."""


class FitError(TinypeftError):
    """The model needs more memory than the board has."""


class ToolError(TinypeftError):
    """A compiler, emulator or library is missing or failed."""


class DeviceError(TinypeftError):
    """A device answered wrongly, not at all, or with an error code: its `status`, else None."""

    status: int | None = None


class OutputError(TinypeftError):
    """An output folder that cannot be written."""


class VerifyError(TinypeftError):
    """A stage produced an inconsistent graph or plan: a defect of tinypeft."""
