# make setup | demo | test | kills | lint | bench | clean. Everything sets itself up from nothing.
# Needs: Python 3.11 or later, make; Node 20 and npm for the interop tests and the benchmarks.
#   PYTHON=python3.12   which interpreter makes .venv
#   NAME=bulk           which rows `make bench` runs (several: NAME="bulk small")
#   TESTS=tests/wire    which tests `make test` runs
#   KILLS=50            how often `make kills` kills each loop

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

TESTS ?=
NAME ?=
KILLS ?= 200

CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3 python)
VENV := .venv
BIN := $(VENV)/bin
NODE := tests/interop/node
VENV_READY := $(VENV)/.ready
NODE_READY := $(NODE)/node_modules/.ready
HAVE_NODE := $(shell command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 && echo yes)

.PHONY: help setup node-packages demo test kills lint bench clean

help:
	@echo 'make setup   prepare .venv (the other targets do it too)'
	@echo 'make demo    publish a file as a log, read and follow it in another process, pass it on'
	@echo 'make test    all tests; interop with Node where Node is installed'
	@echo 'make kills   kill -9 each loop that writes 200 times, not 20 as make test does; KILLS=50'
	@echo 'make lint    ruff check, ruff format --check, mypy --strict'
	@echo 'make bench   side by side with Node; NAME=bulk picks rows'
	@echo 'make clean   remove what the other targets made'

setup: $(VENV_READY)

# PYTHON, or the newest of the PATH: one that runs, has venv and is 3.11 or later. pip 25.1 is the
# first that installs dependency groups.
$(VENV_READY): pyproject.toml
	@set -eu; fits='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'; \
	if ! $(BIN)/python -c "$$fits" >/dev/null 2>&1; then \
	  for candidate in $(CANDIDATES) ''; do \
	    if [ -n "$$candidate" ] && "$$candidate" -c "$$fits" >/dev/null 2>&1; then break; fi; \
	  done; \
	  if [ -z "$$candidate" ]; then \
	    echo 'error: covey needs Python 3.11 or later with the venv module. Tried:' >&2; \
	    for candidate in $(CANDIDATES); do \
	      echo "  $$candidate: $$("$$candidate" --version 2>&1 | head -n 1 || true)" >&2; done; \
	    echo 'Install one (on Debian python3-venv too), or name it: make PYTHON=/path/to/python3.11' >&2; \
	    exit 1; \
	  fi; \
	  echo "making $(VENV) with $$("$$candidate" --version)"; \
	  "$$candidate" -m venv --clear $(VENV); \
	fi; \
	echo 'installing covey and its tools into $(VENV)'; \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'; \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable . --group dev; \
	touch $@

# The published counterparts, exactly as locked. No install scripts run: prebuilt parts ship inside.
node-packages: $(NODE_READY)

$(NODE_READY): $(NODE)/package-lock.json $(NODE)/package.json
	@echo 'installing the Node counterparts into $(NODE)/node_modules'
	@cd $(NODE) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

ifeq ($(HAVE_NODE),yes)
NODE_IF_PRESENT := $(NODE_READY)
else
NODE_IF_PRESENT :=
endif

demo: $(VENV_READY)
	@$(BIN)/python -m covey.cli.demo

test: $(VENV_READY) $(NODE_IF_PRESENT)
	@if [ -z '$(HAVE_NODE)' ]; then \
	  case "$${CI:-}" in \
	    ''|0|false|no) echo 'note: node and npm were not found: the interop tests will be skipped' ;; \
	    *) echo 'error: node and npm were not found, and in CI the interop tests must run' >&2 ;; \
	  esac; \
	fi
	$(BIN)/python -m pytest $(TESTS)

kills: $(VENV_READY)
	COVEY_KILLS=$(KILLS) $(BIN)/python -m pytest tests/store -k kill

lint: $(VENV_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV_READY) $(NODE_IF_PRESENT)
	@if [ -z '$(HAVE_NODE)' ]; then \
	  echo 'error: make bench compares with Node side by side: install node (20 or later) and npm' >&2; exit 1; fi
	@$(BIN)/python -m bench $(NAME)

clean:
	rm -rf $(VENV) $(NODE)/node_modules bench/out dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
