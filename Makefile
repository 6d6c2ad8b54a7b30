# make demo    segment made-up polished sections with the shipped weights; the pictures go to demo/
# make test    every check: package and notebooks in step, lint, types, notebooks and tests; JOBS=4 runs 4 at a time
# make docs    the documentation site, in _docs/
# make dist    wheel and sdist, in dist/
# make picture draw the front page's picture, docs/_static/front.jpg
# make export  write petroscope/ and README.md from the notebooks
# make clean   remove what the above made
#
# PYTHON names the interpreter: make demo PYTHON=python3.12. One that has PyTorch installed already lends it, so that
# nothing large is downloaded: make demo PYTHON=/path/to/environment/bin/python

PYTHON = python3
BIN = .venv/bin
# Processes that run the tests; each may need 2 GB.
JOBS = 2
# An interpreter that was asked for by name also lends its packages; the default one does not.
ifneq ($(origin PYTHON),file)
NAMED = --python "$(PYTHON)"
endif
ENVIRONMENT = "$(PYTHON)" tools/preflight.py && "$(PYTHON)" tools/environment.py $(NAMED)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo test types step lint docs dist readme picture export clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \(make [a-z].*\)/\1/p' Makefile

demo:
	@$(ENVIRONMENT) run
	@$(BIN)/petroscope demo --out demo
	@echo "The pictures are in $(CURDIR)/demo"

test:
	@$(ENVIRONMENT) test
	@$(MAKE) --no-print-directory -j $(JOBS) types step lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# Parts of `make test`, which runs them side by side.
types:
	$(BIN)/mypy

step:
	$(BIN)/python tools/check_step.py

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs:
	@$(ENVIRONMENT) docs
	$(BIN)/python tools/build_docs.py

dist:
	@$(ENVIRONMENT) dist
	rm -rf build dist *.egg-info
	$(BIN)/python -m build --no-isolation
	@ls -l dist

export:
	@$(ENVIRONMENT) test
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python tools/readme.py

readme:
	@"$(PYTHON)" tools/readme.py

picture:
	@$(ENVIRONMENT) run
	$(BIN)/python tools/picture.py

# An environment that make did not make stays.
clean:
	test ! -f .venv/petroscope.json || rm -rf .venv
	rm -rf build dist demo _docs _proc _site_src *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find petroscope nbs tests tools bench docs -name __pycache__ -type d -prune -exec rm -rf {} +
