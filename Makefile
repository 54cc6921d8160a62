# tinypeft: everything a developer or CI runs. `make help` lists it.
VENV := .venv
PYTHON := $(VENV)/bin/python
WORKERS ?= 2

.PHONY: help setup demo test test-all lint bench clean
.DEFAULT_GOAL := help

## Show this list
help:
	@awk '/^## /{text=substr($$0, 4); next} /^[a-z-]+:/ && text {split($$1, target, ":"); \
		printf "  make %-10s %s\n", target[1], text} {text=""}' $(MAKEFILE_LIST)

## Install compilers, emulator and Python packages; quick when all is there
setup:
	@tools/setup.sh $(VENV)

## Run the demonstration: convert, compile, train under emulation, compare
demo: setup
	$(PYTHON) -m tinypeft.demo

## Run the tests but for the slow ones
test: setup
	$(PYTHON) -m pytest -n $(WORKERS) -q -m "not slow"

## Run all tests
test-all: setup
	$(PYTHON) -m pytest -n $(WORKERS) -q

## Check style, formatting and types
lint: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

## Instructions, flash and RAM of the benchmark models, against the baseline
bench: setup
	$(PYTHON) benchmarks/footprint.py

## Remove what building and testing left behind; .venv stays
clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find tinypeft tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
