# Everything a developer runs; each target sets up what it needs in .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint type format clean
# pip must not run twice at once in one environment, not even under make -j
.NOTPARALLEL:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile
	@echo 'PYTHON=python3.12 chooses the interpreter that .venv is made with.'

demo: $(VENV)/.mini  ## train, prune and report on synthetic speech (egs/mini); ARGS="--stage 4" is passed on to run.sh
	@PATH="$(CURDIR)/$(BIN):$$PATH" egs/mini/run.sh $(ARGS)

test: $(VENV)/.dev  ## all tests, a process for each core; ARGS="-k score" is passed on to pytest
	@PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

bench: $(VENV)/.dev  ## measure this machine: docs/performance.md; ARGS="--parts features" is passed on
	@$(BIN)/python tools/bench/bench.py $(ARGS)

lint: $(VENV)/.dev  ## style and types, nothing is changed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/mypy

type: $(VENV)/.dev  ## types only
	@$(BIN)/mypy

format: $(VENV)/.dev  ## rewrite the code in the project's style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove .venv and caches; data and experiments stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find asrprune egs test tools -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp of an extra (.venv/.mini, .venv/.dev) appears only after all of it is installed, and ages with what says what to install.
$(VENV)/.%: pyproject.toml setup.py constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { $(PYTHON) -c "$$CHECK_PYTHON" && $(PYTHON) -m venv --clear $(VENV); }
	@echo "Setting up $(VENV) for '$*' (several GB on the first run, PyTorch above all)"
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

# Runs on any Python since 2.7.
define CHECK_PYTHON
import sys
name = sys.executable + ' %d.%d' % sys.version_info[:2]
if sys.version_info[:2] < (3, 10):
    sys.exit('asrprune needs Python 3.10 or newer and this is ' + name + ': name a newer one, as in make demo PYTHON=python3.12')
try:
    import ensurepip, venv
except ImportError:
    sys.exit(name + ' cannot make environments: install its venv module (Debian, Ubuntu: apt install python3-venv), then try again')
endef
export CHECK_PYTHON
