# Two targets for people: `make run` (the demo) and `make test` (everything CI runs).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.run
TEST_STAMP := $(VENV)/.test

.PHONY: run demo-check test lint types layers unit fix golden proto lock bench clean

run: $(RUN_STAMP)
	@$(BIN)/python conf/demo/demo.py

# The demo, asking itself what it would tell you to ask: exit code 0 if every answer is right.
demo-check: $(RUN_STAMP)
	@rm -rf var/demo
	$(BIN)/python conf/demo/demo.py --check

test: lint types layers unit

lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TEST_STAMP)
	$(BIN)/mypy

layers: $(TEST_STAMP)
	$(BIN)/lint-imports

# Two workers: the suite is made for a machine with two cores. loadgroup keeps tests that share a fixture together.
unit: $(TEST_STAMP)
	$(BIN)/pytest -n 2 --dist loadgroup

fix: $(TEST_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: $(TEST_STAMP)
	UPDATE_GOLDEN=1 $(BIN)/pytest -n 2 -m "not e2e"

# Exact versions with hashes, for every Python from 3.11 on.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url -q -o requirements.lock pyproject.toml
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url -q --extra dev -c requirements.lock -o requirements-dev.lock pyproject.toml

# Regenerates meshd/proto from proto/. The compiler's pins clash with our linters, so it has an environment of its own.
PROTO := build/protoenv

proto: $(PROTO)/.installed
	PYTHON=$(CURDIR)/$(PROTO)/bin/python proto/generate.sh

$(PROTO)/.installed: pyproject.toml
	$(PYTHON) -m venv $(PROTO)
	$(PROTO)/bin/pip install -q --disable-pip-version-check -e '.[proto]'
	@touch $@

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "meshd needs Python 3.11 or later; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(RUN_STAMP): requirements.lock pyproject.toml | $(VENV)/.created
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

$(TEST_STAMP): requirements-dev.lock $(RUN_STAMP)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

clean:
	rm -rf $(VENV) var build *.egg-info
