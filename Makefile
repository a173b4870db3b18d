# Each target sets up .venv by itself when it is missing or older than what it is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup fit test test-all lint type bench clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## the virtual environment with every tested version

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@echo "setting up $(VENV) (some minutes, 1.9 GB or more)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

fit: $(READY) ## play: Language Self-Play on the tiny world, minutes on a laptop
	$(BIN)/lsp-lightning fit --config configs/tiny_lsp.yaml

test: $(READY) ## the tests, without the slow ones
	$(BIN)/pytest -m "not slow"

test-all: $(READY) ## all tests
	$(BIN)/pytest

lint: $(READY) ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(READY) ## types, strict
	$(BIN)/mypy

bench: $(READY) ## the speed: against TRL, as the work grows, phase by phase (ten minutes)
	@$(BIN)/python -c 'import trl, datasets' 2>/dev/null || \
	  $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.speed

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build *.egg-info
