# Everything starts here: `make demo` on a machine that has Python 3.11+ (with its venv module) and make.
# .venv is made by the first target that needs it, and again when what it is made of changes.

BIN := .venv/bin
# What `make test` runs, by default all, and how: four modules at a time, in their order, for the long ones come first. A
# module spends two thirds of its time waiting, for a lease or for a page: four of them keep two cores busy.
TESTS :=
TOGETHER := -n 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test chaos llamaindex check format lock audit sbom clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 12

demo: .venv/.run ## 100 bots over 500 tasks, with everything that needs, then stop it all
	@$(BIN)/fleet demo

test: .venv/.dev ## Run all tests
	@$(BIN)/pytest --no-header $(TOGETHER) $(TESTS)

chaos: .venv/.dev ## Attack real workers and a real Redis, and stock Celery beside them
	@$(BIN)/python -m tests.chaos --budget large

llamaindex: .venv/.dev ## Run the tests of LlamaIndex's agents, in an environment of its own
	@scripts/llamaindex

check: .venv/.dev ## Check format, lint, types, the floors of the house and what the pages claim
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/pytest --no-header -q tests/test_floors.py tests/test_lua.py tests/test_words.py tests/test_docs.py tests/test_every.py

format: .venv/.dev ## Format the code and mend what the linter can
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

lock: .venv/.run ## Write requirements.lock and requirements.hashes anew, with the newest releases
	@scripts/lock

audit: .venv/.run ## Look up known holes in what the container installs
	@scripts/audit

sbom: .venv/.run ## Write build/sbom.cdx.json: what the container holds
	@scripts/sbom

clean: ## Remove .venv, builds and caches; .fleet (your data) stays
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.run: pyproject.toml requirements.lock scripts/setup-venv
	@scripts/setup-venv .
	@touch $@

.venv/.dev: .venv/.run
	@scripts/setup-venv '.[dev]'
	@touch $@
