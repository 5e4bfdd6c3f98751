# Thin: every target calls one command. Variables: DATA WEIGHTS RECIPE EPOCHS LIMIT TARGET STUDY RUNTIME, and of a
# measurement TIER or BUDGET=20m, THREADS=1,4, CPUS='0-3 4-7' (each a set), FORCE=1, JOB;
# of a report FORMAT OUTPUT.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TARGET ?= loopback
RECIPE ?= benchmarks/demo.toml

# A variable becomes an option only where it is set.
option = $(if $($(1)),--$(2) '$($(1))')
WHERE = --target '$(TARGET)' $(call option,STUDY,study)
HOW = $(call option,RUNTIME,runtime) $(call option,TIER,tier) $(call option,BUDGET,budget) \
	$(call option,THREADS,threads) $(foreach set,$(CPUS),--cpus '$(set)') $(call option,LIMIT,limit) $(if $(FORCE),--force)
WHAT = '$(RECIPE)' --target '$(TARGET)' $(call option,DATA,data) $(call option,WEIGHTS,weights) \
	$(call option,EPOCHS,epochs) $(HOW)

# Beside each other, the long files first; more processes than cores, because many tests wait.
PYTEST = $(BIN)/pytest -q -n 5 --dist loadfile --no-loadscope-reorder

# What needs Chromium and Java, or is long and seldom touched.
EXTRA := tests/browser tests/integration/test_interpreters.py tests/integration/test_packed.py

.DEFAULT_GOAL := help
.PHONY: help setup demo run deploy bench camera repeat report reports doctor emulated emulated-stop test test-extra test-arm test-faults lint \
	check lock clean

help: ## this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/host-is-installed ## make .venv and install the pinned, hashed dependencies
$(VENV)/host-is-installed: requirements/host.txt host/pyproject.toml device/pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "error: Python 3.11, 3.12 or 3.13 is required. Received: %d.%d. Name another with make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/host.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e device -e host
	@touch $@

$(VENV)/dev-is-installed: requirements/dev.txt $(VENV)/host-is-installed
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

demo: run ## the main job, from a recipe to a table; offline except for the package index
run: setup ## recipe -> models -> target -> comparison table
	@$(BIN)/liteship run $(WHAT)

deploy: setup ## make a study the active release of TARGET
	@$(BIN)/liteship deploy $(WHERE) $(call option,RUNTIME,runtime)

bench: setup ## measure a study on TARGET
	@$(BIN)/liteship bench $(WHERE) $(HOW)

repeat: setup ## the last measurement again: do the ratios agree?
	@$(BIN)/liteship repeat $(WHERE) $(call option,JOB,job) $(if $(FORCE),--force)

camera: setup ## the deployed model on live frames of TARGET, on a page here; SOURCE, VIEW=terminal
	@$(BIN)/liteship camera $(WHERE) $(call option,SOURCE,source) $(call option,VIEW,view)

report: setup ## print the last table again; FORMAT=html for a page with charts, OUTPUT=PATH for another place
	@$(BIN)/liteship report $(WHERE) $(call option,JOB,job) $(call option,FORMAT,format) $(call option,OUTPUT,output)

reports: setup ## list what was measured
	@$(BIN)/liteship reports $(call option,STUDY,study)

doctor: setup ## what is missing here and on TARGET
	@$(BIN)/liteship doctor --target '$(TARGET)'

emulated: setup ## build and start an emulated ARM64 board: TARGET=emulated
	@$(BIN)/liteship emulated start

emulated-stop: setup ## shut it down
	@$(BIN)/liteship emulated stop

test: $(VENV)/dev-is-installed ## all tests that need no board
	$(PYTEST) tests/integration tests/host tests/device tests/contract $(addprefix --ignore=,$(EXTRA))

test-extra: $(VENV)/dev-is-installed ## the pages in a browser, and runtimes in the Pythons of other Debian releases
	$(PYTEST) $(EXTRA)

test-arm: $(VENV)/dev-is-installed ## the whole way to an emulated ARM64 board, in less than a quarter of an hour
	$(BIN)/pytest -q --durations 5 tests/arm

test-faults: $(VENV)/dev-is-installed ## 200 cuts and 20 power cuts of deploys, an hour; keeps what it found
	$(BIN)/pytest -q tests/faults

lint: $(VENV)/dev-is-installed ## style, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint ## what must hold before a commit: lint and the quick tests
	$(PYTEST) tests/host tests/device tests/contract

lock: $(VENV)/dev-is-installed ## pin the dependencies anew
	PATH="$(CURDIR)/$(BIN):$$PATH" requirements/lock.sh

clean: ## remove what can be made again; studies and targets.toml stay
	@! [ -x $(BIN)/liteship ] || $(BIN)/liteship emulated stop
	rm -rf $(VENV) .liteship .mypy_cache .ruff_cache .pytest_cache .hypothesis
