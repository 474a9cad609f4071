# make run · make test · make jupyter: each prepares .venv first, when it is missing or out of date.
# GNU make 3.81 (macOS) must do.

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.ready
ARGS  ?=
# python3 where it is new enough, else the newest that has its own name; PYTHON=… picks another.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && exit; done; echo python3)

.DELETE_ON_ERROR:
.PHONY: help run test jupyter lock references benchmark setup

help:
	@echo "make run         run the whole runbook on the lab, headless; executed notebooks are in outputs/"
	@echo "make test        pass the tests: ruff, mypy, import directions, pytest and nbval"
	@echo "make jupyter     open JupyterLab on a working copy of the runbook"
	@echo "make lock        write requirements.lock from pyproject.toml (UPGRADE=--upgrade: newest versions)"
	@echo "make references  run the notebooks on a lab of their own and store their reference outputs"
	@echo "make benchmark   measure, and print the ratios"

run: setup
	@$(BIN)/runbook run $(ARGS)

# Every check runs whatever the ones before it said; pytest's summary is the last line printed.
test: setup
	@failed=; \
	$(BIN)/ruff check . || failed="$$failed ruff"; \
	$(BIN)/ruff format --check --quiet . || failed="$$failed ruff-format"; \
	$(BIN)/mypy --strict runbook_lib || failed="$$failed mypy"; \
	$(BIN)/lint-imports || failed="$$failed lint-imports"; \
	test -z "$$failed" || echo "FAILED before pytest:$$failed"; \
	$(BIN)/pytest -n 2 --dist loadfile --nbval --nbval-sanitize-with tests/nbval_sanitize.cfg tests notebooks $(ARGS) \
		|| failed="$$failed pytest"; \
	test -z "$$failed"

jupyter: setup
	@$(BIN)/runbook jupyter $(ARGS)

references: setup
	@$(BIN)/python -m tests.references $(ARGS)

benchmark: setup
	@for file in tests/benchmarks/bench_*.py; do echo "== $$file" && $(BIN)/python -m tests.benchmarks.$$(basename $$file .py) || exit; done

# Needs neither an old lock nor a complete .venv, so that it can repair both.
lock:
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet 'uv>=0.13'
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 --all-extras $(UPGRADE) \
		--output-file requirements.lock pyproject.toml

# Our own bytecode is made here each time: some machines set PYTHONDONTWRITEBYTECODE, and then every kernel compiles anew.
setup: $(STAMP)
	@$(BIN)/python -m compileall -q runbook_lib

# The stamp goes first and comes back last: an interrupted set-up is done again.
$(STAMP): requirements.lock pyproject.toml
	@rm -f $@
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "Preparing $(VENV) from requirements.lock (a minute or two; only when it has changed)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@$(BIN)/python -m compileall -q -j 0 $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
	@touch $@
