"""A store of samples in a device's RAM: how many and how large in, its layout and all the RAM it takes out."""

from __future__ import annotations

from dataclasses import dataclass

from tinypeft.errors import AdapterError

#: Numbers of samples are 16 bits on the device
MAX_SAMPLES = 65535


@dataclass(frozen=True)
class SampleStore:
    """Room for `samples`, each an int32 label where there are `classes`, a target vector if any, the input, padding.

    `adapter_bytes` and `training_bytes`: of what learning from them keeps two copies.
    """

    samples: int
    classes: int
    target_bytes: int
    input_bytes: int
    adapter_bytes: int
    training_bytes: int

    def __post_init__(self) -> None:
        """Raise AdapterError for a number outside the limits."""
        if not 1 <= self.samples <= MAX_SAMPLES:
            raise AdapterError(
                f"a store of {self.samples} samples, the limits are 1 and {MAX_SAMPLES}", "try --samples 32"
            )

    @property
    def sample_bytes(self) -> int:
        """Size of one sample."""
        return _aligned((4 if self.classes else 0) + self.target_bytes + self.input_bytes)

    @property
    def fit_bytes(self) -> int:
        """TP_FIT_MEMORY_BYTES: two copies of adapter and training state, and what keeps track of the samples."""
        copy = _aligned(self.adapter_bytes) + _aligned(self.training_bytes)
        return 2 * copy + 4 * self.classes + 4 + _aligned(2 * self.samples)

    @property
    def nbytes(self) -> int:
        """All of it."""
        return self.samples * self.sample_bytes + self.fit_bytes


def latent_room(store: SampleStore | None) -> int:
    """The latents of so many samples find room on a device: of all that its store holds, without one of one."""
    return store.samples if store is not None else 1


def replay_bytes(store: SampleStore | None, latent_bytes: int) -> int:
    """What a store, where there is one, and the room for latents of `latent_bytes` each take; 0 for no latents."""
    return (store.nbytes if store is not None else 0) + latent_room(store) * latent_bytes


def _aligned(size: int) -> int:
    return (size + 3) // 4 * 4
