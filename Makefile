# The two front doors are `make quickstart` and `make test`.
PYTHON ?= python3.11
VENV ?= .venv
WORK_DIR ?= work_dirs/quickstart
# A worker per core; tests of one file share fixtures, so they stay together.
PARALLEL = -n auto --maxprocesses=4 --dist loadfile

.PHONY: help setup quickstart test test-slow test-sanitized test-gpu lint clean

help:
	@echo 'make quickstart   set up, train an adder Faster R-CNN on digit scenes, evaluate, draw'
	@echo 'make test         set up, run the tests'
	@echo 'make test-slow    set up, run the slow tests'
	@echo 'make test-gpu     set up, build for this GPU, prove the operators on it, and time them'
	@echo 'make test-sanitized   set up, run the operators'"'"' tests under AddressSanitizer and UBSan'
	@echo 'make lint         set up, check style: ruff for Python, clang-format for C++ and CUDA'
	@echo 'make setup        only set up: $(VENV) with the pinned stack and our extension'
	@echo 'make clean        remove what quickstart and builds wrote, not $(VENV)'

setup:
	@command -v $(PYTHON) >/dev/null || { \
	  echo 'set-up: $(PYTHON) was not found: apt-get install python3.11 python3.11-dev python3.11-venv, or make PYTHON=/path/to/python3.11'; exit 1; }
	@$(PYTHON) tools/setup_env.py --venv $(VENV)

quickstart: setup
	@$(VENV)/bin/python tools/quickstart.py --work-dir "$(WORK_DIR)"

test: setup
	$(VENV)/bin/python -m pytest -q --durations=10 $(PARALLEL)

# Warnings are errors in the fast tests only.
test-slow: setup
	$(VENV)/bin/python -m pytest -q --durations=10 $(PARALLEL) -m slow -W default $(PYTEST_OPTIONS)

# Compiles into build/sanitized; the normal extension stays as it is.
test-sanitized: setup
	$(VENV)/bin/python tools/test_sanitized.py

# GPU_OPTIONS=--no-sanitizer leaves compute-sanitizer out.
test-gpu: setup
	$(VENV)/bin/python tools/test_gpu.py $(GPU_OPTIONS)

lint: setup
	$(VENV)/bin/ruff check
	git ls-files '*.c' '*.cpp' '*.h' '*.cu' '*.cuh' | xargs $(VENV)/bin/clang-format --dry-run -Werror

clean:
	rm -rf "$(WORK_DIR)" build mmadder.egg-info mmadder/_C.*.so
