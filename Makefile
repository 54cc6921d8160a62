# tinypeft: everything a developer or CI runs. `make help` lists it.
VENV := .venv
PYTHON := $(VENV)/bin/python
WORKERS ?= 2
# of `make fuzz`: how many models, and which
N ?= 300
SEED ?= 0
# of `make fuzz-firmware`: executions in all, and seconds at most for each parser, 0: no limit
RUNS ?= 10000000
SECONDS ?= 0

.PHONY: help setup setup-browser demo test test-all test-power fuzz fuzz-firmware lint bench size docs clean
.DEFAULT_GOAL := help

## Show this list
help:
	@awk '/^## /{text=substr($$0, 4); next} /^[a-z-]+:/ && text {split($$1, target, ":"); \
		printf "  make %-14s %s\n", target[1], text} {text=""}' $(MAKEFILE_LIST)

## Install compilers, emulator and Python packages; quick when all is there
setup:
	@tools/setup.sh $(VENV)

## Install a browser too, 400 MB, in which the tests open the page of `tinypeft analyze`
setup-browser:
	@TINYPEFT_BROWSER=1 tools/setup.sh $(VENV)

## Run the demonstration: convert, compile, train under emulation, compare
demo: setup
	$(PYTHON) -m tinypeft.demo

## Run the tests but for the slow ones
test: setup
	$(PYTHON) -m pytest -n $(WORKERS) -q -m "not slow"

## Run all tests
test-all: setup
	$(PYTHON) -m pytest -n $(WORKERS) -q

## Cut the power at every flash operation of the store, and again while it recovers
test-power: setup
	$(PYTHON) tests/store/power_cuts.py

## Compare N random models with LiteRT, in the interpreter, the host twin and QEMU
fuzz: setup
	$(PYTHON) tests/fuzz/fuzz.py -n $(N) --seed $(SEED) --workers $(WORKERS) --json build/fuzz/report.json

## Fuzz the firmware's parsers under sanitizers, RUNS executions in all
fuzz-firmware: setup
	$(PYTHON) tests/fuzz_firmware/fuzz.py --runs $(RUNS) --seconds $(SECONDS)

## Check style, formatting and types
lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

## Code and RAM of what keeps adapters on a device, by part, against limits and the baseline
size: setup
	$(PYTHON) benchmarks/size.py

## Instructions, flash and RAM of the benchmark models, and what their kernels cost, against the baselines
bench: size
	$(PYTHON) benchmarks/footprint.py
	$(PYTHON) benchmarks/kernels.py

## Write the tables under docs/ that follow from the code
docs: setup
	$(PYTHON) tools/write_docs.py

## Remove what building and testing left behind; .venv stays
clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find tinypeft tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
