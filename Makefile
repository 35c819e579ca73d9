# Two commands matter: `make demo` and `make test`. Both set up .venv by themselves.
# Linux without a GPU: give PyTorch's CPU index, e.g.  make demo TORCH_PIP_ARGS="--index-url <the CPU index named on pytorch.org>"
PYTHON ?= python3
TORCH_PIP_ARGS ?=
BIN := .venv/bin

RESULTS := benchmarks/results

.PHONY: setup demo test test-slow lint types check bench bench-peers clean

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
	$(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist worksteal

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

check: lint types test

# On a machine with nothing else to do. `make bench-peers` makes environments of WSInfer and TIAToolbox, 4 GB, in .bench.
bench: setup
	$(BIN)/python benchmarks/startup.py --json $(RESULTS)/startup.json
	$(BIN)/python benchmarks/reading.py --json $(RESULTS)/reading.json
	$(BIN)/python benchmarks/network.py --json $(RESULTS)/network.json
	$(BIN)/python benchmarks/network.py --peers --json $(RESULTS)/peers.json
	$(BIN)/python benchmarks/growth.py --plot docs/images/growth.svg --json $(RESULTS)/growth.json
	$(BIN)/python benchmarks/tiles_in_projects.py --json $(RESULTS)/tiles_in_projects.json
	$(BIN)/python benchmarks/tiling.py --json $(RESULTS)/tiling.json
	$(BIN)/python benchmarks/write_results.py

bench-peers: setup
	$(BIN)/python benchmarks/peers/setup.py --torch-pip-args="$(TORCH_PIP_ARGS)"
	$(BIN)/python benchmarks/end_to_end.py --json $(RESULTS)/end_to_end.json
	$(BIN)/python benchmarks/write_results.py

clean:
	rm -rf .venv demo
