# Each target is one command on a fresh machine with Python 3.11 or later, a C compiler and make.
# Everything is installed into .venv; nothing else on the machine is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(shell find csrc -name '*.[ch]')
PYTEST := $(BIN)/python -m pytest -q

.PHONY: demo test test-all test-c lint bench sanitize emulate clean

# The main job: train, quantize, run, verify on the digits that ship.
demo: $(VENV)/installed
	$(BIN)/python -m ndquant

# The suite on the best backend; the other backends on the case list. Under 10 minutes on 2 cores.
test: $(VENV)/installed-test
	$(PYTEST) tests python/ndquant --doctest-modules

# Everything: every backend fully, the C driver, sanitizers, emulated machines, other Python and NumPy versions.
test-all: $(VENV)/installed-test test-c sanitize emulate lint
	NDQUANT_TEST_ALL=1 $(PYTEST) tests python/ndquant --doctest-modules

bench: $(VENV)/installed-test
	$(BIN)/python -m tests.bench

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ndquant needs Python 3.11 or later: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "cannot make a virtual environment: apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/installed: $(VENV)/python $(SOURCES)
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build dist python/ndquant/_core*.so python/*.egg-info
