# What one types here. Needs Python >= 3.11 with pip; everything else is put into .venv.

SHELL := /bin/sh
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
# constraints.txt pins torch, so that pip takes the build its own configuration offers (a CPU build
# where there is one) and not the newest CUDA build.
CONSTRAINTS := constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)

# The oldest versions in pyproject.toml of what is simulated.
OLDEST := torch==2.11.0 torchvision==0.26.0

# What the integration tests run against.
DEBIAN_PACKAGES := curl prometheus postgresql munge python3-venv slurm-client slurmctld slurmd \
	slurm-wlm-basic-plugins buildah debootstrap openssl

# The tests of one file stay in one process. More processes than two would each keep a server and its
# workers, some GB each; the integration tests run alone, as they measure times.
IN_TWO := --numprocesses 2 --dist loadfile

# The interpreters to try, in this order. To choose one: make test PYTHON=/path/to/python
PYTHON ?= python3 python3.13 python3.12 python3.11 python3.14 python

.PHONY: help plan test test-oldest test-integration kubernetes lint proto released-contract chart dashboard \
	coverage-models accuracy calibrate corpus speed clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

plan: $(VENV)/.installed ## Set up what a user needs, and print the plan of a real job (ResNet-50)
	$(BIN)/memplan plan torchvision/resnet50 --input 3x224x224 --batch-size 64 --optimizer adam \
		--precision fp32 --gpu nvidia-a100-40gb --gpu nvidia-t4 --global-batch-size 1024

test: $(VENV)/.installed-dev ## Run the test suite
	$(BIN)/pytest $(IN_TWO) -m 'not integration and not slow'

test-oldest: ## Run the tests that need torch under the oldest one supported (downloads some GB)
	@mkdir -p build
	@{ grep -v -e '^torch==' -e '^torchvision==' constraints.txt; printf '%s\n' $(OLDEST); } >build/oldest.txt
	@$(MAKE) VENV=build/oldest CONSTRAINTS=build/oldest.txt build/oldest/.installed-dev
	build/oldest/bin/pytest $(IN_TWO) -m 'not integration and not slow' tests/server tests/capture \
		tests/bench tests/gpu

test-integration: $(VENV)/.installed-dev ## Run the long tests and those against Debian's packages (installs them when root)
	@for program in curl prometheus promtool slurmctld slurmd sbatch munged buildah debootstrap openssl; do \
		command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$$missing postgres"; \
	test -z "$$missing" || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
		&& apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
		--no-install-recommends $(DEBIAN_PACKAGES) >/dev/null; } \
		|| { echo "Missing:$$missing. Install $(DEBIAN_PACKAGES), or run this as root." >&2; exit 1; }
	$(BIN)/pytest $(IN_TWO) --dist worksteal -m 'slow and not integration'
	$(BIN)/pytest -m integration

kubernetes: $(VENV)/.installed-dev ## Optional: build Kubernetes from Debian's source (10 minutes, once) and test on it
	tests/kubernetes/control_plane.sh build/kubernetes
	$(BIN)/pytest -m integration tests/kubernetes

lint: $(VENV)/.installed-dev ## Check style, types and the contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/buf breaking --against proto/released.json

proto: $(VENV)/.installed-dev ## Generate the stubs in client/memplan/v1 from proto/
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=client --pyi_out=client \
		--grpc_python_out=client proto/memplan/v1/*.proto

chart: $(VENV)/.installed-dev ## Write what follows from the Helm chart: its tables, its schema, the plain manifests
	$(BIN)/python tests/deploy/chart_files.py

dashboard: $(VENV)/.installed-dev ## Write deploy/grafana/memplan.json from dashboard.py
	$(BIN)/python deploy/grafana/dashboard.py

released-contract: $(VENV)/.installed-dev ## At a release: keep the contract, which later ones must not break
	$(BIN)/buf build --exclude-source-info --output proto/released.json

coverage-models: $(VENV)/.installed-dev ## Count the models that get an estimate, list the others (long)
	$(BIN)/python bench/coverage.py --torchvision --timm 200 --transformers 60 --diffusers

accuracy: $(VENV)/.installed-dev ## Score the estimates, write docs/accuracy.md: make accuracy DIR=folder
	@test -d '$(DIR)' || { echo 'Say where the measurements are: make accuracy DIR=folder' >&2; exit 2; }
	$(BIN)/python bench/accuracy.py '$(DIR)' --out docs/accuracy.md

calibrate: $(VENV)/.installed-dev ## Take the margins of the bounds from measurements: make calibrate DIR=folder
	@test -d '$(DIR)' || { echo 'Say where the measurements are: make calibrate DIR=folder' >&2; exit 2; }
	$(BIN)/python bench/calibrate.py '$(DIR)'

corpus: ## On a machine with a CUDA GPU: its tests, comparisons and corpus: make corpus OUT=folder
	@test -n '$(OUT)' || { echo 'Say where the results go: make corpus OUT=folder' >&2; exit 2; }
	bench/corpus/device.sh '$(OUT)'

speed: $(VENV)/.installed ## Time estimates, searches and cached answers
	$(BIN)/python bench/speed.py
	$(BIN)/python bench/load.py

clean: ## Remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing memplan into $(VENV) (once; some minutes on a slow network) ...'
	@$(INSTALL) --editable '.[cli,server,models]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo 'Installing the development tools into $(VENV) ...'
	@$(INSTALL) --editable '.[cli,kubernetes,server,models,postgresql,dev]'
	@touch $@

$(BIN)/python:
	@for python in $(PYTHON); do \
		"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
			|| continue; \
		echo "Making $(VENV) with $$("$$python" --version) ..."; \
		exec "$$python" -m venv $(VENV); \
	done; \
	echo 'No Python >= 3.11 with venv and pip among: $(PYTHON).' >&2; \
	echo 'Install one (Debian: apt-get install python3-venv), or name it: make $(MAKECMDGOALS) PYTHON=...' >&2; \
	exit 1
