# Everything runs in a virtual environment of the project's own; needed are make and Python 3.11 or newer.
VENV ?= .venv
BIN := $(VENV)/bin
CANDIDATES := python3 python3.13 python3.12 python3.11
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
DEMO_ARGS ?=
TEST_ARGS ?=
# `short` or `full`: docs/firmware_bench.md.
VM ?= full

.PHONY: demo test lint bench vm-bench docs proto coverage clean

demo: $(VENV)/.demo
	$(BIN)/python examples/day2_fleet.py $(DEMO_ARGS)

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile $(TEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench
	@set -e; for script in benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python $$script; done

vm-bench: $(VENV)/.dev
	EDGE_DAY2_VM=$(VM) $(BIN)/python -m pytest -n 2 --dist load tests/system/test_firmware.py $(TEST_ARGS)

docs: $(VENV)/.dev
	$(BIN)/python -m edge_day2.testing.flow_diagrams docs/flows.md

proto: $(VENV)/.dev
	$(BIN)/python -m grpc_tools.protoc -Isrc --python_out=src --pyi_out=src src/edge_day2/adapters/grpc/maintmgr.proto

coverage: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov=edge_day2.domain --cov-branch --cov-report=term-missing $(TEST_ARGS)

clean:
	rm -rf $(VENV) .vm build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "edge_day2 needs Python 3.11 or newer, none of $(CANDIDATES) is"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[profiles,sql,rich]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.bench: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@
