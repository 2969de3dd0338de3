# make demo and make test are all a fresh machine needs; each makes its own environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py constraints.txt $(wildcard csrc/sources.txt csrc/*/*.cpp csrc/*/*.h)

.PHONY: demo test test-all lint types native driver dist docs env clean check-tools

demo: env
	$(BIN)/spacetime demo $(ARGS)

# In two processes, then those that need the machine to themselves; ARGS go to pytest in both.
test: $(VENV)/.test
	PYTHON=$(BIN)/python tests/run.sh $(ARGS)

test-all: $(VENV)/.test
	PYTHON=$(BIN)/python tests/run.sh -m "not gpu and not driver" $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.cpp' '*.h')

# mypy knows no package-dir: links stand in for the folders that are installed into the package.
types: $(VENV)/.test
	@ln -sfn ../kernels spacetime/kernels && ln -sfn ../benchmarks spacetime/benchmarks
	$(BIN)/mypy

native: $(VENV)/.test
	PYTHON=$(BIN)/python tests/native/run.sh

# NVIDIA's own parts that need no GPU, fetched into build/driver; skipped where they cannot be had.
driver: $(VENV)/.test
	PYTHON=$(BIN)/python tests/driver/run.sh $(ARGS)

# What is published: source distribution, wheel, a clean environment. Objects stay in build/dist.
dist: $(VENV)/.test
	$(BIN)/python -m pytest -m "not gpu" tests/house/test_distribution.py $(ARGS)

# A site of the pages and the docstrings in build/docs/site; a link that leads nowhere is an error.
docs: $(VENV)/.docs
	PYTHON=$(BIN)/python docs/site/build.sh

env: $(VENV)/.demo

$(VENV)/.demo: $(SOURCES) | $(VENV)/.made
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[demo]'
	@touch $@

$(VENV)/.test: $(SOURCES) | $(VENV)/.made
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[test]'
	@touch $@ $(VENV)/.demo $(VENV)/.docs

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/.demo
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[docs]'
	@touch $@

$(VENV)/.made: | check-tools
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt setuptools wheel pybind11
	@touch $@

# One line each for what pip could only report in a page of compiler output.
check-tools:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  { echo "spacetime needs Python >= 3.10 as '$(PYTHON)': install it, or set PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing: install it (Debian: apt install python3-venv)"; exit 2; }
	@command -v $${CXX:-c++} >/dev/null || \
	  { echo "a C++20 compiler is missing: install one (Debian: apt install g++)"; exit 2; }
	@$(PYTHON) -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' || \
	  { echo "Python.h is missing: install Python's headers (Debian: apt install python3-dev)"; exit 2; }

clean:
	rm -rf $(VENV) build spacetime/_native*.so *.egg-info
