# The two commands are `make demo` and `make test`; each sets itself up from a bare Python >= 3.11.
SHELL := /bin/sh
VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready
ARGS  ?=
# Processes that test: files are shared out among them. 0 tests in one, for a debugger.
TESTERS ?= 2

.PHONY: demo test benchmark benchmark-react generated lint types arrows check lock clean setup

demo: $(READY)
	@$(BIN)/suture demo $(ARGS)

test: $(READY)
	@$(BIN)/python -m pytest --numprocesses $(TESTERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Suture against the floors, boto3, Prowler and c7n-org; ARGS="--quick --json" takes under a minute.
benchmark: $(READY)
	@$(BIN)/python tests/benchmarks/fleet/run.py $(ARGS)

# From a bad change to its verified fix, on both clouds; ARGS="--quick --json" takes under a minute.
benchmark-react: $(READY)
	@$(BIN)/python tests/benchmarks/react/run.py $(ARGS)

# What is made from the rule table: the README's table, the templates that customers deploy.
generated: $(READY)
	@$(BIN)/python -m deployments.generated

setup: $(READY)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pip --disable-pip-version-check check

types: $(READY)
	$(BIN)/mypy

arrows: $(READY)
	$(BIN)/lint-imports

check: lint types arrows test

# The first interpreter of the system that is 3.11 or newer and can make an environment. Nothing is
# compiled beforehand: most modules of the clouds' libraries are never imported. The lock names all
# there is, so that pip need not resolve; `make lint` checks that it does.
$(READY): requirements.txt pyproject.toml
	@set -e; \
	for candidate in python3.13 python3.12 python3.11 python3 python3.14; do \
	  if command -v $$candidate >/dev/null 2>&1 && \
	     $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	  then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Suture needs Python 3.11 or newer with the venv module; none was found on PATH." >&2; exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$($$python --version) (once; a minute or two) ..." >&2; \
	$$python -m venv --clear $(VENV); \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements.txt >&2; \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e . >&2; \
	touch $(READY)

# uv resolves for every platform and Python at once; pip installs what it wrote.
lock:
	uv pip compile pyproject.toml --extra local --extra dask --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" \
	  --output-file requirements.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
