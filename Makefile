# Lockstep's commands. Each sets up what it needs: .venv is made again when pyproject.toml or constraints.txt change.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run demo test test-slow faults faults-containers check compose-check clean

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/installed ## start Lockstep on this machine and label in the browser; Ctrl-C stops it, again goes on
	@$(BIN)/lockstep run

demo: .venv/installed ## see the whole loop without hands: a teacher labels until the agent is solved
	@$(BIN)/lockstep demo

test: .venv/installed-dev ## run the tests, real servers included, but not the long learning runs
	@bash tests/setup_services.sh
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

test-slow: .venv/installed-dev ## run the long learning runs
	@bash tests/setup_services.sh
	$(BIN)/python -m pytest -m slow

faults: .venv/installed-dev ## break the running system 200 times, see that nothing is lost; half an hour
	@bash tests/setup_services.sh
	$(BIN)/python -m tests.faults --faults 200 --seed 1

faults-containers: .venv/installed-dev ## the same 40 times on the containers of docker compose; ten minutes
	$(BIN)/python -m tests.faults --containers --faults 40 --seed 1

check: .venv/installed-dev ## check format, style, types and who imports whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

compose-check: .venv/installed-dev ## bring the full size up with Docker and try it; takes some minutes
	$(BIN)/python -m tests.compose.check

clean: ## remove .venv and caches; data/ and runs/ stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "Lockstep needs Python 3.11, and found: $$({ $(PYTHON) --version; } 2>&1 | head -n 1)"; \
	  echo "Install it (Debian: apt install python3.11-venv; macOS: brew install python@3.11;"; \
	  echo "anywhere: uv python install 3.11), or name it: make PYTHON=/path/to/python3.11"; exit 1; } >&2
	@$(PYTHON) -m venv .venv || { echo "On Debian: apt install python3.11-venv" >&2; rm -rf .venv; exit 1; }

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing Lockstep and PyTorch into .venv: the first time over a gigabyte and some minutes ..."
	@$(PIP) -e ".[trainer]"
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "Installing what the tests and checks need into .venv: the first time about a minute ..."
	@$(PIP) -e ".[trainer,dev]"
	@touch $@
