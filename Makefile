# Each target is one command on a fresh machine with Python 3.11 or later, a C compiler and make.
# Everything is installed into .venv and built in build/; nothing else on the machine is touched.

PYTHON ?= python3
CC ?= cc
VENV := .venv
BIN := $(VENV)/bin
CORE := $(shell find csrc -name '*.c' -not -path '*/bindings/*')
HEADERS := $(shell find csrc -name '*.h')
SOURCES := setup.py pyproject.toml $(HEADERS) $(shell find csrc -name '*.c')
WARNINGS := -Wall -Wextra -Wshadow -Wvla -Wpointer-arith -Werror
CFLAGS := -std=c11 -O3 -ffp-contract=off -fno-trapping-math -fno-math-errno -pthread -Icsrc $(WARNINGS)
STRESS := $(CFLAGS) tests/c/stress.c $(CORE) -lm
PYTEST := $(BIN)/python -m pytest -q

.PHONY: demo test test-all test-c sanitize emulate lint bench clean

# The main job: a network trained, quantized two ways, run and verified, on the digits that ship.
demo: $(VENV)/installed
	@$(BIN)/python -m ndquant

# BLAS threads wait for each other by spinning: on a machine that does something else besides, small products take a
# hundred times as long. The tests need none; results do not depend on it.
test test-all sanitize emulate: export OPENBLAS_NUM_THREADS ?= 1

# The whole suite, with the kernels on every backend that this machine has.
test: $(VENV)/installed-test
	$(PYTEST) tests python/ndquant

# Everything: also sanitizers, processors that this machine is not, other versions of Python and NumPy.
test-all: lint test-c sanitize emulate $(VENV)/installed-test
	NDQUANT_TEST_ALL=1 $(PYTEST) tests python/ndquant

# The core without Python: every backend against the portable one, then several threads under the thread sanitizer.
test-c: build/stress build/stress-tsan
	build/stress
	build/stress-tsan

build/stress: tests/c/stress.c $(CORE) $(HEADERS)
	@mkdir -p build
	$(CC) -g $(STRESS) -static -o $@

build/stress-tsan: tests/c/stress.c $(CORE) $(HEADERS)
	@mkdir -p build
	$(CC) -g -fsanitize=thread $(STRESS) -o $@

build/stress-emulated: tests/c/stress.c $(CORE) $(HEADERS)
	@mkdir -p build
	$(CC) -g -DNDQ_EMULATE $(STRESS) -o $@

# The Python tests of arrays and products on a build with the address and undefined-behaviour sanitizers (gcc).
sanitize: $(VENV)/installed-test
	NDQUANT_SANITIZE=1 $(BIN)/python setup.py -q build --build-base build/sanitize --build-lib build/sanitize/lib
	PYTHONPATH=build/sanitize/lib PYTHONMALLOC=malloc UBSAN_OPTIONS=halt_on_error=1 \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	$(PYTEST) -s -p no:cacheprovider $(ARRAY_TESTS)

ARRAY_TESTS := tests/test_elementwise.py tests/test_training_kernels.py tests/test_qparams.py tests/test_observers.py \
	tests/test_gemm.py tests/test_linear_integer.py tests/test_golden.py tests/test_tutorials.py tests/test_verify.py

# AVX-512 and VNNI in an emulator; AVX-VNNI, which it does not know, in a build that computes it by other instructions; the
# array tests on a processor without AVX2. tests/emulate/README.md says what it needs.
emulate: build/stress build/stress-emulated $(VENV)/installed-test
	if grep -qw avx2 /proc/cpuinfo; then build/stress-emulated avxvnni; else echo "skipped: no AVX2"; fi
	$(BIN)/python tests/emulate/run.py --cpu tigerlake build/stress --no-threads avx512vnni || test $$? = 77
	$(BIN)/python tests/emulate/run.py --cpu corei7_skylake_x build/stress --no-threads avx512 || test $$? = 77
	@if command -v qemu-x86_64 >/dev/null; then \
	    qemu-x86_64 -cpu SandyBridge $(BIN)/python -m pytest -q -p no:cacheprovider tests/test_elementwise.py tests/test_gemm.py; \
	else echo "skipped: no qemu-x86_64 (Debian package qemu-user)"; fi

lint: $(VENV)/installed-test
	$(BIN)/pip install --quiet ruff mypy
	$(BIN)/ruff check .

bench: $(VENV)/installed
	$(BIN)/python -m tests.bench.elementwise
	$(BIN)/python -m tests.bench.gemm
	$(BIN)/python -m tests.bench.training

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "ndquant needs Python 3.11 or later: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	    || { echo "cannot make a virtual environment; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/installed: $(VENV)/python $(SOURCES)
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build dist python/ndquant/_core*.so python/*.egg-info
