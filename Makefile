# `make run` starts the broker, `make test` checks everything. Each makes its own environment first.
# Another interpreter:  make test PYTHON=python3.13 VENV=.venv-3.13

PYTHON ?= python3
VENV ?= .venv
HOST ?= 127.0.0.1
PORT ?= 5672
URL ?= amqp://guest:guest@$(HOST):$(PORT)/
BIN := $(VENV)/bin

.PHONY: run test lint types unit conformance clients-node docs format clean
.DEFAULT_GOAL := test

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $(VENV)/.installed $@

# The broker takes make's place, so that Ctrl-C and SIGTERM reach it.
run: $(VENV)/.installed
	@exec $(BIN)/leveret serve --host $(HOST) --port $(PORT)

test: lint types unit

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

unit: $(VENV)/.installed-test
	$(BIN)/pytest

# Runs against any broker that listens at URL.
conformance: $(VENV)/.installed-test
	$(BIN)/python -m conformance --url $(URL)

# amqplib's tests against the broker at URL; needs node and npm.
clients-node:
	sh tests/clients/node/run.sh $(URL)

# Rewrites the pages of docs/ that are made from the code.
docs: $(VENV)/.installed
	$(BIN)/python docs/generate.py

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
