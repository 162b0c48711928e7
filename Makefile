# Everything here sets itself up: a pinned uv in .tools/ if there is none, then .venv from uv.lock.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench deb clean
ARGS ?=
STAMP := .venv/.set-up
PYTHON := .venv/bin/python
PACKAGES := ashat blocks tasks flows
CODE := $(PACKAGES) examples bench tests scripts

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r a b; do printf '%-14s %s\n' "$$a" "$$b"; done

setup: $(STAMP) ## make .venv from the committed lock

$(STAMP): uv.lock pyproject.toml scripts/uv
	@scripts/uv sync --quiet --frozen --compile-bytecode
	@touch $(STAMP)

demo: $(STAMP) ## ALPHA -> Public -> verify -> gate -> OMEGA -> two Mainframes, here (ARGS=--yes: unattended)
	@.venv/bin/deploy demo $(ARGS)

test: $(STAMP) ## the whole test suite (ARGS=tests/unit/bundle/test_manifest.py: a part of it)
	@$(PYTHON) -m pytest -n 3 --dist loadgroup --no-loadscope-reorder $(ARGS)

lint: $(STAMP) ## style, types, who imports whom, and whether the lock is fresh
	@$(PYTHON) -m ruff check $(CODE)
	@$(PYTHON) -m ruff format --check $(CODE)
	@$(PYTHON) -m mypy --strict $(PACKAGES)
	@.venv/bin/lint-imports
	@scripts/uv lock --check

format: $(STAMP) ## put the code into the house's format
	@$(PYTHON) -m ruff check --fix $(CODE)
	@$(PYTHON) -m ruff format $(CODE)

bench: $(STAMP) ## how fast bytes move on good and bad lines, a reading command answers, a release is verified; how often performance errs
	@$(PYTHON) bench/transfer.py $(ARGS)
	@$(PYTHON) bench/lines.py $(ARGS)
	@$(PYTHON) bench/cli.py $(ARGS)
	@$(PYTHON) bench/trust.py $(ARGS)
	@$(PYTHON) bench/verification.py $(ARGS)
	@$(PYTHON) bench/limits.py $(ARGS)
	@$(PYTHON) bench/fleet.py $(ARGS)
	@$(PYTHON) bench/bluegreen.py $(ARGS)
	@$(PYTHON) bench/performance_check.py --runs 20 $(ARGS)

deb: $(STAMP) ## a Debian package of the node in dist/, which lintian has looked at (DEBFULLNAME and DEBEMAIL maintain it)
	@$(PYTHON) scripts/debian_package.py $(ARGS)

clean: ## remove what the targets above made
	rm -rf .venv .tools .tools-cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
