# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
WORKERS ?= 2
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-deps setup web check bench docs clean

demo: setup web
	$(BIN)/brainlocus demo --out demo

# Two at a time; a file's tests stay together, so that what a file prepares is prepared once.
test: setup web check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile

test-slow: setup web
	$(BIN)/python -m pytest -m slow

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt scripts/setup.sh
	sh scripts/setup.sh "$(PYTHON)" "$(VENV)"

web: setup
	$(BIN)/python hatch_build.py

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m benchmarks

docs: setup
	$(BIN)/mkdocs build --strict

# The Debian packages that some tests compare with or look through; tests skip, with the reason, where one is absent.
test-deps:
	sh scripts/test-deps.sh

clean:
	rm -rf $(VENV) demo site web/node_modules src/brainlocus/portal/_web
