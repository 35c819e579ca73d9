# Two commands matter: `make demo` and `make test`. Both set up .venv by themselves.
# Linux without a GPU: give PyTorch's CPU index, e.g.  make demo TORCH_PIP_ARGS="--index-url <the CPU index named on pytorch.org>"
PYTHON ?= python3
TORCH_PIP_ARGS ?=
BIN := .venv/bin

.PHONY: setup demo test test-slow lint types check bench clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "her2bridge needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(TORCH_PIP_ARGS) -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,openvino]'
	touch $@

demo: setup
	$(BIN)/her2bridge demo demo

test: setup
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

check: lint types test

bench: setup
	$(BIN)/python benchmarks/tiles_in_projects.py
	$(BIN)/python benchmarks/tiling.py

clean:
	rm -rf .venv demo
