# Set-up in two commands: `make demo` and `make test`. VENV chooses where the environment lives.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help venv install install-dev demo test quick lint format typecheck bench figures checks docs docs-deploy clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[torch,data]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[torch,data,dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[torch,data,docs]'
	@touch $@ $(VENV)/.installed

venv: $(BIN)/python ## an empty virtual environment
install: $(VENV)/.installed ## install with torch (CPU) and the digits data
install-dev: $(VENV)/.installed-dev ## the same, with the tools for tests and checks

demo: install ## theory beside experiment on real images: a table and demo.png
	$(BIN)/eoc compare --activation tanh --depth 30 --width 100 --sigma-b 0.2 --sparsity 0.5,0.9,0.98 \
		--criterion snip --data digits --seeds 40 --plot demo.png

test: install-dev ## the whole test suite, a process for each core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

quick: install-dev ## the tests that take less than five seconds each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m 'not slow'

lint: install-dev ## ruff: lint and format; import-linter: imports point downwards
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/ruff format --check .

format: install-dev ## ruff: mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: install-dev ## pyright
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: install-dev ## the benchmarks' table
	$(BIN)/python -m benchmarks

figures: install-dev ## render the figures again
	$(BIN)/python -m figures

checks: install ## the paper's claims: statement, evidence, verdict
	$(BIN)/python -m paper_checks

docs: $(VENV)/.installed-docs ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

docs-deploy: $(VENV)/.installed-docs ## the site of VERSION beside those of older versions, on the branch gh-pages
	# mike calls mkdocs by its name.
	PATH="$(abspath $(BIN)):$$PATH" NO_MKDOCS_2_WARNING=1 $(BIN)/mike deploy --push --update-aliases $(VERSION) latest
	$(BIN)/mike set-default --push latest

clean:
	rm -rf build site dist demo.png .pytest_cache .ruff_cache .hypothesis
