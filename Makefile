# memplan: what a newcomer types. Needs Python >= 3.11 and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: test test-integration lint proto

# torch first and pinned: pip then takes the build that its own configuration offers.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "memplan needs Python >= 3.11; name one with PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable '.[cli,server,models,dev]'
	touch $@

test: $(VENV)/.ready
	$(BIN)/pytest -m 'not integration'

test-integration: $(VENV)/.ready
	$(BIN)/pytest -m integration || test $$? -eq 5  # 5: there is none yet

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint

proto: $(VENV)/.ready
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=client --pyi_out=client \
		--grpc_python_out=client proto/memplan/v1/*.proto
