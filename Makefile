# Two commands: `make chat` from a bare clone to a conversation, `make test` to every check.
# Works with GNU make 3.81 (macOS). PYTHON is any Python from 3.11 on; everything else is fetched.

PYTHON = python3
BIN = .venv/bin
TREE = build/tree/edgespec
# Where imports are looked up by the type checker: the package, programs beside it, helpers of the
# tests.
PROGRAMS = scripts tools research
TYPE_PATH = build/tree:scripts:tools:research:tests/support

# What `make test-train` adds; of some indexes a plain torch brings gigabytes for GPUs, and
# TORCH="torch==2.13.0+cpu" or the like does not. Nothing is installed as editable there, so -P keeps
# this folder's edgespec/, which is only a part of the package, from being imported.
TORCH = torch>=2.6,<3
# Questions of each kind that `make results` asks.
LIMIT ?= 6
# What `make test-clients` adds: 520 MB with what they need, and other versions than ours.
CLIENTS = "litellm>=1.110,<2" "instructor>=1.17,<2" "llama-benchy>=0.4,<0.5"

.PHONY: help setup setup-dev chat check test goldens picture results test-train test-clients lint tree browser clean

help:
	@echo 'make chat    set up, take the default models, open the chat'
	@echo 'make setup   environment with a sound build of llama.cpp (.venv)'
	@echo 'make check   format, lint, strict types, import contracts, unit tests'
	@echo 'make test    everything in check, then every test'
	@echo 'make goldens write what screens show anew, to be looked at'
	@echo 'make picture draw the picture of the chat anew (docs/chat.svg)'
	@echo 'make results measure the default pair on a quiet machine, and write it into README.md'
	@echo 'make test-train  tests of `edgespec learn drafter`, with PyTorch, in an environment of its own'
	@echo 'make test-clients  tests of the server with large clients, in an environment of its own'
	@echo 'make clean   remove .venv and build products; models and built wheels stay'

setup:
	@$(PYTHON) scripts/bootstrap

setup-dev:
	@$(PYTHON) scripts/bootstrap --dev

chat: setup
	@$(BIN)/edgespec chat

tree: setup-dev
	@$(BIN)/python scripts/link_tree.py $(TREE)

lint: tree
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@MYPYPATH=$(TYPE_PATH) $(BIN)/mypy --explicit-package-bases $(TREE) $(PROGRAMS) tests
	@cd build/tree && PYTHONPATH=. ../../$(BIN)/lint-imports --config ../../pyproject.toml

check: lint
	@$(BIN)/python -m pytest -q -n 2 --hypothesis-profile=quick tests/unit

# Pages are tested in a real browser; where it cannot be installed their tests are skipped.
browser:
	@command -v chromium chromium-browser google-chrome > /dev/null || { \
		[ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && \
		echo 'edgespec: installing Chromium for the tests of pages' && apt-get update -qq && \
		apt-get install -qq -y --no-install-recommends chromium > /dev/null; } || \
		echo 'edgespec: no Chromium: the tests of pages are skipped (install one to run them)'

test: lint browser
	@$(BIN)/python -m pytest

goldens: tree
	@$(BIN)/python -m pytest -q --snapshot-update tests/unit/test_tui_goldens.py \
		tests/unit/test_tui_snapshots.py tests/unit/test_tui_models.py tests/unit/test_tui_stats.py
	@$(BIN)/python -m pytest -q --snapshot-update tests/real/test_chat_story.py

picture: tree
	@$(BIN)/python tests/support/chat_picture.py docs/chat.svg

results: tree
	@mkdir -p build
	@$(BIN)/edgespec bench --suite all --limit $(LIMIT) --json build/results.json
	@$(BIN)/python tools/results.py build/results.json README.md docs/results.svg

test-train: tree
	@test -d .venv-train || $(BIN)/python -m venv .venv-train
	@.venv-train/bin/python -m pip install -q "$(TORCH)"
	@.venv-train/bin/python scripts/lend_packages.py build/tree .venv
	@.venv-train/bin/python -P -m pytest tests/train

test-clients: tree
	@test -d .venv-clients || $(BIN)/python -m venv .venv-clients
	@.venv-clients/bin/python -m pip install -q $(CLIENTS)
	@.venv-clients/bin/python scripts/lend_packages.py build/tree .venv
	@.venv-clients/bin/python -P -m pytest tests/clients

clean:
	rm -rf .venv .venv-train .venv-clients build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf .import_linter_cache snapshot_report.html
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
