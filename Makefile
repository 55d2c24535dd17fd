# From a fresh clone, with nothing but Python >= 3.10 and a C++ compiler:
#   make quickstart   set-up, build, and the main job on real text
#   make test         set-up, build, all tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A build without isolation finds cmake and ninja here.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: quickstart test test-arm64 cuda-all build lint bench verified gpu-report clean
.DEFAULT_GOAL := build

$(VENV)/.ready: requirements/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	touch $@

# The package itself, editable; CMake alone then keeps the libraries up to date.
$(VENV)/.installed: $(VENV)/.ready setup.py pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

build: $(VENV)/.installed
	@if [ -d build/cpu ]; then cmake --build build/cpu; fi

quickstart: build
	$(BIN)/bigfast quickstart

# One torch thread per worker: two workers with two threads each would fight for two cores.
test: build
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup tests

# The portable kernels on another processor, under an emulator; from Debian:
#   apt install g++-aarch64-linux-gnu qemu-user
test-arm64: $(VENV)/.ready
	cmake -G Ninja -B build/arm64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
		-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ >/dev/null
	cmake --build build/arm64
	qemu-aarch64 build/arm64/kernels

# The CUDA kernels for every GPU, with what the table says they need; needs nvcc, no GPU.
cuda-all: build
	BIGFAST_CUDA_ALL=1 $(BIN)/pytest tests/cuda

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.h' '*.inl' '*.cu' '*.cuh')

# Measures here (an hour on two cores), and draws README's figures and tables from the results.
RESULTS := benchmarks/results/cpu
SWAPPED = $(shell $(BIN)/python -c "from bigfast.benchmarks.shapes import SWAPPED; print(*SWAPPED)")
bench: build
	$(BIN)/bigfast bench ops --device cpu --json $(RESULTS)/ops.json
	$(BIN)/bigfast bench model bert-base --device cpu --json $(RESULTS)/bert-base.json
	$(BIN)/bigfast bench model gpt2 --device cpu --json $(RESULTS)/gpt2.json
	for model in $(SWAPPED); do \
		$(BIN)/bigfast bench swap $$model --device cpu --json $(RESULTS)/swap-$$model.json || exit 1; done
	$(BIN)/python -m bigfast.benchmarks.figures

# What `bigfast verify` finds for every family that can be swapped, in about ten minutes.
verified: build
	$(BIN)/python tests/hf/verified.py docs/verified.md

# On a machine with a GPU, in under 9 minutes: tests, benchmarks, goals; ARGS="--only attention", "--dry-run".
# With BIGFAST_BUILD_CUDA=1 in the environment the CUDA C++ kernels are built first (nvcc), and run too.
REPORT := $(if $(filter file default,$(origin PYTHON)),$(or $(wildcard $(BIN)/python),$(PYTHON)),$(PYTHON))
gpu-report:
	@$(REPORT) -c "import bigfast.benchmarks, bigfast.ops.library as l, os; exit(bool(l.NATIVE_MISSING or \
		os.environ.get('BIGFAST_BUILD_CUDA') == '1' and l.CUDA_NOT_LOADED))" \
		2>/dev/null || $(REPORT) -m pip install --quiet --no-build-isolation --no-deps --no-index -e .
	$(REPORT) -m bigfast.benchmarks.gpu_report $(ARGS)

clean:
	rm -rf build dist bigfast/*.so bigfast/_build_failure.txt
