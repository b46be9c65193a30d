# Two commands: `make quickstart` does all set-up and the main job; `make test` does all set-up and passes the tests.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= out/quickstart
export HF_HUB_OFFLINE ?= 1
# The tests' tensors are small: more threads only wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest

.PHONY: quickstart test test-all check format setup setup-dev clean

.venv/uv.stamp:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	touch $@

.venv/core.stamp: .venv/uv.stamp pyproject.toml constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable .
	touch $@

.venv/dev.stamp: .venv/core.stamp
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[all,dev]'
	touch $@

setup: .venv/core.stamp
setup-dev: .venv/dev.stamp

quickstart: setup
	$(BIN)/diffident quickstart --out $(OUT)

test: setup-dev
	$(PYTEST)

test-all: setup-dev
	$(PYTEST) -m "slow or not slow"

format: setup-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(MAKE) test

clean:
	rm -rf .venv out build dist
