"""What switching costs: a pointer for what is in memory; what is on flash is loaded in time linear in its size."""

from __future__ import annotations

import numpy as np
import pytest
from kept import Build, data

SWAP_LIMIT = 2000
NAMES = ("plain", "residual", "mlp")


def instructions(device, action) -> int:
    action()
    counted = device.instructions()
    if counted is None:
        pytest.skip(f"no counter: {device.counter_reason}")
    return counted


def test_switching_between_residents_copies_nothing(kept: Build) -> None:
    """As many instructions for an adapter of any size; and writing down what is to serve after a reset is apart."""
    counts = {}
    for name in NAMES:
        built = kept(name)
        with built.running("qemu", count=True) as device:
            for user in ("anna", "ben"):
                device.adapters.push(user, built.package(user, 1 if user == "anna" else 2))
                device.adapters.activate(user)
                device.adapters.confirm(user)
            x = built.samples(1).x[0]
            for user in ("anna", "ben") * 2:
                counted = instructions(device, lambda user=user: device.adapters.activate(user, keep=False))
                seed = 1 if user == "anna" else 2
                assert device.infer(data(x)).output == built.output(built.trained(seed), x)
                counts[name, user] = counted
            counts[name, "base"] = instructions(device, lambda: device.adapters.deactivate(keep=False))
    print(counts)
    assert max(counts.values()) <= SWAP_LIMIT
    for user in ("anna", "ben", "base"):
        assert len({counts[name, user] for name in NAMES}) == 1, counts


def test_loading_is_linear_in_the_size(kept: Build) -> None:
    sizes, counts = [], []
    for name in NAMES:
        built = kept(name)
        with built.running("qemu", count=True) as device:
            for user in ("anna", "ben", "carla"):
                device.adapters.push(user, built.package(user, 1))
                device.adapters.activate(user)
                device.adapters.confirm(user)
            counts.append(instructions(device, lambda: device.adapters.activate("anna", keep=False)))
            sizes.append(len(built.package("anna", 1)))
    slope, fixed = np.polyfit(sizes, counts, 1)
    print(f"loading: {slope:.1f} instructions a byte + {fixed:.0f}, for {sizes} bytes {counts}")
    assert np.allclose(np.polyval([slope, fixed], sizes), counts, rtol=0.1)
    assert slope < 60 and fixed < 6000
