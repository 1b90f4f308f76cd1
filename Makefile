# `make sandbox` and `make test` need git, make and python3 (3.11 or newer) with venv; they set the rest up in .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --progress-bar on
# Exactly the versions in release/requirements*.txt, by their hashes, and then whatever pyproject.toml has beside them.
# LOCKED=no takes what fits pyproject.toml instead, say for a Python that they do not know yet.
LOCKED ?= yes
ifeq ($(LOCKED),no)
locked = true
THIS := $(PIP) --editable
else
locked = $(PIP) --require-hashes $(patsubst %,--requirement release/%.txt,$(1)) || { \
	echo "== The locked versions can't be had here; make LOCKED=no ... takes others"; exit 1; }
THIS := $(PIP) --no-build-isolation --editable
endif

.PHONY: sandbox test trial lint bench release lock audit coverage clean

sandbox: .venv/relay.installed
	$(BIN)/wireleap-relay sandbox --once

test: .venv/tests.installed
	$(BIN)/python -m pytest

trial: .venv/tests.installed
	$(BIN)/trial tests

lint: .venv/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# make bench ["BENCH=down up --peer go=/path/to/wireleap-relay --stunnel"]
bench: .venv/tests.installed
	$(BIN)/python benchmarks/session.py
	$(BIN)/python benchmarks/relays.py $(BENCH)

# make release VERSION=0.7.1 KEY=release-key.asc [URL=https://...] [NEXT=next-public-key.asc]
release: .venv/release.installed
	@test -n "$(VERSION)" -a -n "$(KEY)" || { echo "make release: say VERSION=0.7.1 and KEY=FILE, with the OpenPGP key that signs"; exit 1; }
	@$(BIN)/python release/build.py --version "$(VERSION)" --key "$(KEY)" $(if $(URL),--url "$(URL)") $(if $(NEXT),--also-trust "$(NEXT)")

# Needs uv (https://docs.astral.sh/uv).
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --upgrade
lock:
	$(LOCK) pyproject.toml --output-file release/requirements.txt
	printf 'hatchling>=1.27\neditables>=0.5\n' | $(LOCK) - --constraint release/requirements.txt --output-file release/requirements-build.txt
	$(LOCK) --extra tests pyproject.toml --constraint release/requirements.txt --constraint release/requirements-build.txt --output-file release/requirements-tests.txt

# Needs pip-audit, and a way to PyPI.
audit:
	pip-audit --disable-pip --require-hashes $(patsubst %,--requirement %,$(wildcard release/requirements*.txt))

coverage: .venv/tests.installed
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache _trial_temp* .coverage

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "python3 is too old: 3.11 or newer is needed (or say: make PYTHON=python3.12 ...)"; exit 1; }
	@echo "== Making a virtual environment in .venv"
	@$(PYTHON) -m venv .venv

.venv/relay.installed: .venv/bin/python pyproject.toml release/requirements.txt release/requirements-build.txt
	@echo "== Installing the relay into .venv (half a minute on a fast line)"
	@$(call locked,requirements requirements-build)
	@$(THIS) . && touch $@

.venv/tests.installed: .venv/relay.installed release/requirements-tests.txt
	@echo "== Installing what the tests need"
	@$(call locked,requirements-tests)
	@$(THIS) '.[tests]' && touch $@

.venv/dev.installed: .venv/tests.installed
	@echo "== Installing the linters"
	@$(PIP) -e '.[dev]' && touch $@

.venv/release.installed: .venv/relay.installed
	@echo "== Installing what builds releases"
	@$(PIP) -e '.[release]' && touch $@
