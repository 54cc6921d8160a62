"""What a device that keeps adapters must do, in Python: the store, what is in memory, what serves, and training."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from kept import ADAPTERS, RESIDENT, Kept

from tinypeft.device import AdapterList, StoredAdapter
from tinypeft.interpreter import run_graph
from tinypeft.package.format import Identity, parse
from tinypeft.state import pack_adapter, unpack_adapter

State = dict[str, np.ndarray]
#: TP_DEVICE_TEST_BOOTS
TEST_BOOTS = 3
NOT_FOUND, STATE, FULL, ROLLBACK, IDENTITY = -17, -18, -15, -12, -22


class Refused(Exception):
    """A status that the device must give."""

    def __init__(self, status: int):
        super().__init__(status)
        self.status = status


@dataclass
class Entry:
    """An id in the store; packages by part. `checkpoint`: weights, training, step and the adapter's version."""

    id: str
    confirmed: bytes | None = None
    candidate: bytes | None = None
    checkpoint: tuple[State, State, int, int] | None = None
    counter: int = 0
    on_test: bool = False
    boots: int = 0

    def serving(self) -> str | None:
        if self.candidate is not None and self.on_test:
            return "candidate"
        return "confirmed" if self.confirmed is not None else None

    def version(self, part: str) -> int:
        package = getattr(self, part)
        assert package is not None
        return parse(package).header.identity.version


@dataclass
class Resident:
    """An adapter in memory; `part` is None where it equals none of the store."""

    id: str = ""
    part: str | None = None
    version: int = 0
    used: int = 0
    changed: bool = False
    weights: State = field(default_factory=dict)


class DeviceModel:
    """The device as it should be. Every operation does what the command of its name does, or raises Refused."""

    def __init__(self, kept: Kept):
        self.kept, self.model = kept, kept.model
        self.entries: list[Entry] = []
        self.active: Entry | None = None
        self.weight_names = [t.name for t in self.model.adapter_weights]
        self.start()

    def start(self) -> None:
        """As after a reset, before a boot is counted."""
        fresh = self.model.fresh_state(0)
        self.base = self._weights(fresh)
        self.residents = [Resident() for _ in range(RESIDENT)]
        self.residents[0].weights = dict(self.base)
        self.training = self._rest(fresh)
        self.owner: State | None = self.residents[0].weights
        self.clock, self.serving = 0, self.residents[0]
        self._serve(self.residents[0])

    # what serves

    def weights(self) -> State:
        return self.base if self.serving is None else self.serving.weights

    def infer(self, x: np.ndarray) -> bytes:
        return self.kept.output(self.weights(), x)

    def use(self, name: str | None) -> None:
        if name is None:
            self._serve(None)
            return
        entry = self.find(name)
        part = entry.serving()
        if part is None:
            raise Refused(NOT_FOUND)
        self._serve(self._resident(entry, part) or self._load(entry, part))

    def activate(self, name: str | None, keep: bool) -> None:
        if not keep:
            self.use(name)
            return
        if name is not None:
            entry = self.find(name)
            if entry.candidate is not None and self._resident(entry, "candidate") is None:
                self._serve(self._load(entry, "candidate"))
            if entry.candidate is None and entry.confirmed is None:
                raise Refused(NOT_FOUND)
            entry.on_test = entry.candidate is not None
            self.active = entry
        else:
            self.active = None
        self.use(name)

    def _serve(self, resident: Resident | None) -> None:
        self.serving = resident
        if resident is not None:
            self.clock += 1
            resident.used = self.clock

    def _resident(self, entry: Entry, part: str) -> Resident | None:
        for resident in self.residents:
            if (resident.id, resident.part, resident.version) == (entry.id, part, entry.version(part)):
                return resident
        return None

    def _load(self, entry: Entry, part: str) -> Resident:
        resident = self._make_room()
        self._forget(resident)
        resident.id, resident.part, resident.version = entry.id, part, entry.version(part)
        resident.weights = unpack_adapter(self.model, getattr(entry, part))
        return resident

    def _make_room(self) -> Resident:
        others = [r for r in self.residents if r is not self.serving]
        return min(others, key=lambda r: (r.changed, r.used))

    def _forget(self, resident: Resident) -> None:
        resident.id, resident.part, resident.version, resident.used, resident.changed = "", None, 0, 0, False

    # the store

    def find(self, name: str) -> Entry:
        for entry in self.entries:
            if entry.id == name:
                return entry
        raise Refused(NOT_FOUND)

    def _entry(self, name: str) -> Entry:
        try:
            return self.find(name)
        except Refused:
            if len(self.entries) == ADAPTERS:
                raise Refused(FULL) from None
            return Entry(name)

    def push(self, name: str, package: bytes) -> None:
        identity = parse(package).header.identity
        known = [entry for entry in self.entries if entry.id == name]
        if identity.id != name:
            raise Refused(IDENTITY)
        if known and identity.counter < known[0].counter:
            raise Refused(ROLLBACK)
        self._put_candidate(name, package)

    def _put_candidate(self, name: str, package: bytes) -> None:
        entry = self._entry(name)
        entry.candidate, entry.on_test, entry.boots = package, False, 0
        if entry not in self.entries:
            self.entries.append(entry)
        if self.active is entry and entry.serving() is None:
            self.active = None
        for resident in self.residents:
            if resident.id == name and resident.part == "candidate":
                if resident is self.serving:
                    resident.part = None
                else:
                    self._forget(resident)

    def confirm(self, name: str) -> None:
        entry = self.find(name)
        if entry.candidate is None or not entry.on_test:
            raise Refused(STATE)
        counter = parse(entry.candidate).header.identity.counter
        if counter < entry.counter:
            raise Refused(ROLLBACK)
        entry.confirmed, entry.counter = entry.candidate, counter
        entry.candidate, entry.on_test, entry.boots = None, False, 0
        self._drop(name, ("confirmed",))
        for resident in self.residents:
            if resident.id == name and resident.part == "candidate":
                resident.part = "confirmed"

    def revert(self, name: str) -> None:
        entry = self.find(name)
        if entry.candidate is None:
            raise Refused(STATE)
        self._give_up_candidate(entry)
        self._drop(name, ("candidate",))

    def _give_up_candidate(self, entry: Entry) -> None:
        entry.candidate, entry.on_test, entry.boots = None, False, 0
        self._settle(entry)

    def _settle(self, entry: Entry) -> None:
        """What can no longer serve is not active; what holds nothing is forgotten."""
        if self.active is entry and entry.serving() is None:
            self.active = None
        if (entry.confirmed, entry.candidate, entry.checkpoint, entry.counter) == (None, None, None, 0):
            self.entries.remove(entry)

    def delete(self, name: str) -> None:
        entry = self.find(name)
        if (entry.confirmed, entry.candidate, entry.checkpoint) == (None, None, None):
            raise Refused(NOT_FOUND)
        entry.confirmed = entry.candidate = entry.checkpoint = None
        entry.on_test, entry.boots = False, 0
        self._settle(entry)
        self._drop(name, ("confirmed", "candidate", None))

    def _drop(self, name: str, parts: tuple[str | None, ...]) -> None:
        served = False
        for resident in self.residents:
            if resident.id == name and resident.part in parts:
                served |= resident is self.serving
                self._forget(resident)
        if served:
            self._serve(None)
            known = [entry for entry in self.entries if entry.id == name and entry.confirmed is not None]
            if known:
                self.use(name)

    def save(self, name: str, version: int) -> None:
        if self.serving is None:
            raise Refused(STATE)
        known = [entry for entry in self.entries if entry.id == name]
        counter = known[0].counter if known else 0
        serving = self.serving
        package = pack_adapter(self.model, serving.weights, Identity(name, version, counter))
        self._entry(name)  # refused before anything changes
        self._forget(serving)
        self._put_candidate(name, package)
        serving.id, serving.part, serving.version, serving.used = name, "candidate", version, self.clock

    # training

    def train(self, x: np.ndarray, label: int, rate: np.float32) -> None:
        self._claim()
        state = {**self.weights(), **self.training}
        graph = self.model.training
        assert graph is not None and self.serving is not None
        run_graph(graph, {graph.inputs[0].name: x, "label": np.int32(label), "learning_rate": rate}, state)
        self._take(state)

    def reset_adapter(self, seed: int) -> None:
        self._write()
        self._take(self.model.fresh_state(seed))
        self.owner = self.weights()

    def load(self, package: bytes) -> None:
        self._write()
        assert self.serving is not None
        self.serving.weights.update(unpack_adapter(self.model, package))
        self._restore()

    def checkpoint(self, name: str, step: int) -> None:
        if self.serving is None:
            raise Refused(STATE)
        self._prepare()
        entry = self._entry(name)
        entry.checkpoint = (_copy(self.serving.weights), _copy(self.training), step, self.serving.version)
        if entry not in self.entries:
            self.entries.append(entry)

    def resume(self, name: str) -> int:
        entry = self.find(name)
        if entry.checkpoint is None:
            raise Refused(NOT_FOUND)
        self._write()
        assert self.serving is not None
        weights, training, step, version = entry.checkpoint
        self.serving.weights.update(_copy(weights))
        self.training, self.owner = _copy(training), self.serving.weights
        self.serving.id, self.serving.version = name, version
        return step

    def _claim(self) -> None:
        if self.serving is None:
            raise Refused(STATE)
        self.serving.changed = True
        self._prepare()

    def _prepare(self) -> None:
        if self.owner is not self.weights():
            self._restore()

    def _restore(self) -> None:
        assert self.model.restore is not None
        state = {**self.weights(), **self.training}
        run_graph(self.model.restore, {}, state)
        self._take(state)
        self.owner = self.weights()

    def _write(self) -> None:
        if self.serving is None:
            resident = self._make_room()
            self._forget(resident)
            resident.weights = dict(self.base)
            self._serve(resident)
        assert self.serving is not None
        self._forget(self.serving)
        self.serving.used, self.serving.changed = self.clock, True

    def _take(self, state: State) -> None:
        assert self.serving is not None
        self.serving.weights.update(self._weights(state))
        self.training = self._rest(state)

    def _weights(self, state: State) -> State:
        return {name: np.array(state[name]) for name in self.weight_names}

    def _rest(self, state: State) -> State:
        return {t.name: np.array(state[t.name]) for t in self.model.training_state}

    # restarts

    def restart(self) -> None:
        """A warm reset: a boot of what is on test is counted, or that is given up."""
        entry = self.active
        if entry is not None and entry.on_test:
            if entry.boots >= TEST_BOOTS:
                self._give_up_candidate(entry)
            else:
                entry.boots += 1
        self.start()
        if self.active is not None:
            self.use(self.active.id)

    # what the device lists

    def listed(self) -> AdapterList:
        adapters = []
        for entry in self.entries:
            resident = next((r for r in self.residents if r.id == entry.id), None)
            version = {
                part: entry.version(part) if getattr(entry, part) else None for part in ("confirmed", "candidate")
            }
            adapters.append(
                StoredAdapter(
                    entry.id,
                    version["confirmed"],
                    version["candidate"],
                    entry.checkpoint[2] if entry.checkpoint else None,
                    entry.counter,
                    entry.on_test,
                    entry.boots,
                    entry is self.active,
                    resident is not None,
                    resident is not None and resident.changed,
                )
            )
        base = self.serving is None
        return AdapterList("" if self.serving is None else self.serving.id, base, -1, -1, tuple(adapters))


def _copy(state: State) -> State:
    return {name: np.array(value) for name, value in state.items()}
