# Each target is one command on a fresh machine with Python 3.11 or later, a C compiler and make.
# Everything is installed into .venv and built in build/; nothing else on the machine is touched.

PYTHON ?= python3
CC ?= cc
CLANG ?= clang-19
VENV := .venv
BIN := $(VENV)/bin
CORE := $(shell find csrc -name '*.c' -not -path '*/bindings/*')
HEADERS := $(shell find csrc -name '*.h')
SOURCES := setup.py pyproject.toml $(HEADERS) $(shell find csrc -name '*.c')
WARNINGS := -Wall -Wextra -Wshadow -Wvla -Wpointer-arith -Werror
CFLAGS := -std=c11 -O3 -ffp-contract=off -fno-trapping-math -fno-math-errno -pthread -Icsrc $(WARNINGS)
STRESS := $(CFLAGS) tests/c/stress.c $(CORE) -lm
PYTEST := $(BIN)/python -m pytest -q
# Files are shared out among processes, one for each core; what a file's tests have in common is made once.
IN_PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile

EMULATED := emulate-arm64 emulate-x86 emulate-avx512 emulate-avx512vnni emulate-avx512vpopcntdq

.PHONY: demo test test-all test-c sanitize emulate $(EMULATED) lint bench notebooks docs clean

# The main job: a network trained, quantized two ways, run and verified, on the digits that ship.
demo: $(VENV)/installed
	@$(BIN)/python -m ndquant

# BLAS threads wait for each other by spinning: on a machine that does something else besides, small products take a
# hundred times as long. The tests need none; results do not depend on it.
test test-all notebooks sanitize emulate $(EMULATED): export OPENBLAS_NUM_THREADS ?= 1

# The whole suite, with the kernels on every backend that this machine has.
test: $(VENV)/installed-test
	$(PYTEST) $(IN_PARALLEL) tests python/ndquant

# Everything: also sanitizers, processors that this machine is not, other versions of Python and NumPy.
test-all: lint test-c sanitize emulate $(VENV)/installed-test
	NDQUANT_TEST_ALL=1 $(PYTEST) $(IN_PARALLEL) tests python/ndquant

# The core without Python: every backend against the portable one, then several threads under the thread sanitizer, then
# the sanitizer of uninitialised memory, which only clang has.
test-c: build/stress build/stress-tsan
	build/stress
	build/stress-tsan
	@if command -v $(CLANG) >/dev/null; then $(MAKE) --no-print-directory build/stress-msan && build/stress-msan; \
	else echo "skipped: no $(CLANG) (Debian package of that name) for the sanitizer of uninitialised memory"; fi

build/stress: tests/c/stress.c $(CORE) $(HEADERS)
	@mkdir -p build
	$(CC) -g $(STRESS) -static -o $@

build/stress-tsan: tests/c/stress.c $(CORE) $(HEADERS)
	@mkdir -p build
	$(CC) -g -fsanitize=thread $(STRESS) -o $@

# At -O1 clang leaves loops that ask to be vectorised as they are, and says so.
build/stress-msan: tests/c/stress.c $(CORE) $(HEADERS)
	@mkdir -p build
	$(CLANG) -g -fsanitize=memory $(STRESS) -O1 -Wno-pass-failed -o $@

build/stress-arm64: tests/c/stress.c $(CORE) $(HEADERS)
	@mkdir -p build
	aarch64-linux-gnu-gcc -g $(STRESS) -static -o $@

build/stress-emulated: tests/c/stress.c $(CORE) $(HEADERS)
	@mkdir -p build
	$(CC) -g -DNDQ_EMULATE $(STRESS) -o $@

# The Python tests of arrays and products on a build with the address and undefined-behaviour sanitizers (gcc).
sanitize: $(VENV)/installed-test
	NDQUANT_SANITIZE=1 $(BIN)/python setup.py -q build --build-base build/sanitize --build-lib build/sanitize/lib
	PYTHONPATH=build/sanitize/lib PYTHONMALLOC=malloc UBSAN_OPTIONS=halt_on_error=1 \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:handle_segv=0 \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	$(PYTEST) -s -p no:cacheprovider $(ARRAY_TESTS)

ARRAY_TESTS := $(patsubst %,tests/test_%.py,elementwise training_kernels qparams observers ranges golden tutorials \
	bad_arrays gemm gemm_f32 linear_integer conv conv_transpose grouped binary bits rows plan verify one_call threads \
	guard_pages)

# Processors that this machine is not, two at a time. tests/emulate/README.md says what that needs; what is missing is
# skipped with a line that names it.
emulate: build/stress build/stress-emulated $(VENV)/installed-test
	if grep -qw avx2 /proc/cpuinfo; then build/stress-emulated avxvnni amx; else echo "skipped: no AVX2"; fi
	$(MAKE) --no-print-directory -j2 --output-sync $(EMULATED)

emulate-avx512 emulate-avx512vnni emulate-avx512vpopcntdq: emulate-%: build/stress $(VENV)/installed-test
	$(BIN)/python tests/emulate/run.py --cpu $(BOCHS_$*) build/stress --no-threads $* || test $$? = 77

BOCHS_avx512 := corei7_skylake_x
BOCHS_avx512vnni := tigerlake
BOCHS_avx512vpopcntdq := tigerlake

# qemu cannot fork while another of its threads runs, and has threads of its own. Each backend is tested on the processor
# that needs it, with a tenth of the random examples.
EMULATED_PYTEST := -m pytest -q -p no:cacheprovider --hypothesis-profile=emulated
EMULATED_TESTS := not fork_while_another_thread and not small_work and not concurrent_futures

emulate-x86: $(VENV)/installed-test
	@if command -v qemu-x86_64 >/dev/null; then \
	    qemu-x86_64 -cpu SandyBridge $(BIN)/python $(EMULATED_PYTEST) tests/test_elementwise.py tests/test_gemm.py && \
	    qemu-x86_64 -cpu Haswell $(BIN)/python $(EMULATED_PYTEST) -k "$(EMULATED_TESTS) and not portable" $(ARRAY_TESTS); \
	else echo "skipped: no qemu-x86_64 (Debian package qemu-user)"; fi

emulate-arm64: $(VENV)/installed-test
	@if command -v qemu-aarch64 >/dev/null && command -v aarch64-linux-gnu-gcc >/dev/null; then \
	    $(MAKE) --no-print-directory build/stress-arm64 && \
	    qemu-aarch64 -cpu cortex-a53 build/stress-arm64 neon && \
	    qemu-aarch64 -cpu neoverse-n1 build/stress-arm64 neondot; fi
	$(ARM64) --cpu cortex-a53 $(EMULATED_PYTEST) -k "not portable" tests/test_gemm.py || test $$? = 77
	$(ARM64) --cpu max $(EMULATED_PYTEST) -k "$(EMULATED_TESTS) and (neondot or not (neon or portable))" \
	    $(ARRAY_TESTS) || test $$? = 77

ARM64 := $(BIN)/python tests/emulate/arm64.py

lint: $(VENV)/installed-test
	$(BIN)/pip install --quiet ruff mypy
	$(BIN)/ruff check .

# Executes the notebooks, without the network, and keeps their outputs in them.
notebooks: $(VENV)/installed-test
	$(BIN)/python notebooks/execute.py

# The reference from the docstrings, and four pages beside it, in build/docs.
docs: $(VENV)/installed
	$(BIN)/pip install --quiet --editable '.[docs]'
	$(BIN)/python -m sphinx -q -W --keep-going docs build/docs

bench: $(VENV)/installed
	$(BIN)/python -m tests.bench.elementwise
	$(BIN)/python -m tests.bench.gemm
	$(BIN)/python -m tests.bench.models
	$(BIN)/python -m tests.bench.training
	$(BIN)/python -m tests.bench.residual

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "ndquant needs Python 3.11 or later: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	    || { echo "cannot make a virtual environment; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/installed: $(VENV)/python $(SOURCES)
	$(BIN)/pip install --quiet --editable .
	@touch $@

# Not after the one above: each compiles everything.
$(VENV)/installed-test: $(VENV)/python $(SOURCES)
	$(BIN)/pip install --quiet --editable '.[test,notebooks,dask]'
	@touch $(VENV)/installed $@

clean:
	rm -rf $(VENV) build dist python/ndquant/_core*.so python/*.egg-info
