# `make demo` and `make test` do all their own set-up in .venv; nothing else need be installed but Python 3.11 or newer.
# Python 3.11 is preferred: the published MatGL weights need DGL 1.1.3, which has no wheels for newer ones.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
TORCH := 2.13.0
# The encoders are tested with MatGL on PyG as well, in an environment of their own: the two MatGLs exclude each other.
PYTHON_PYG ?= $(PYTHON)
MATGL_PYG := 4.1.2

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# DGL under Python 3.11, for which the published weights were made; PyG above.
export MATGL_BACKEND := $(shell $(PYTHON) -c 'import sys; print("DGL" if sys.version_info < (3, 12) else "PYG")')
# Threads that wait for each other on a busy machine make small matrices a hundred times slower.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test quick quick-newer docs dist release test-lowest test-plugins test-pyg fuzz audit lint bench clean

PLUGINS := $(wildcard plugins/scotl-matgl-*)

demo: .venv/base
	$(BIN)/scotl-matgl demo

test: .venv/test
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest -q --doctest-modules scotl_matgl

# While you work, in less than a minute: without torch, without third-party data, without what is marked slow.
FAST := -q -n auto -m "not slow and not assets and not torch" tests
quick: .venv/test
	$(BIN)/python -m pytest $(FAST)

# The fast tests under every newer Python that is installed here; those that are not are named.
NEWER := 3.12 3.13
quick-newer: pyproject.toml
	set -e; for version in $(NEWER); do \
	  python=$$(ls -d $${PYENV_ROOT:-/nowhere}/versions/$$version.*/bin/python 2>/dev/null | tail -1); \
	  test -n "$$python" || python=$$(command -v python$$version || true); \
	  "$$python" -c "" 2>/dev/null || python=; \
	  if [ -z "$$python" ]; then echo "skipped: there is no Python $$version here"; continue; fi; \
	  test -x .venv-$$version/bin/python || "$$python" -m venv .venv-$$version; \
	  .venv-$$version/bin/python -m pip install --quiet --upgrade pip; \
	  .venv-$$version/bin/python -m pip install --quiet --editable '.[test]'; \
	  .venv-$$version/bin/python -m pytest $(FAST); \
	done

# The site, into site/: warnings are errors (not with --quiet, under which mkdocs counts none), notebooks are run, and
# the questions of docs/questions.md are searched for.
docs: .venv-docs/docs
	NO_MKDOCS_2_WARNING=1 SCOTL_MATGL_ASSETS= .venv-docs/bin/mkdocs build --strict
	.venv-docs/bin/python tools/search_docs.py

# Wheels and source archives of the package and its plugins, checked; `release` uploads them.
dist: .venv-docs/dist
	rm -rf dist
	set -e; for folder in . $(PLUGINS); do .venv-docs/bin/python -m build --outdir dist $$folder >/dev/null; done
	.venv-docs/bin/twine check --strict dist/*
	.venv-docs/bin/check-wheel-contents dist/*.whl
	.venv-docs/bin/python tools/check_sdist.py dist

# Not before the site is served at the address that the packages name.
release: dist
	curl --fail --silent --show-error --location --output /dev/null $$(sed -n 's/^Documentation = "\(.*\)"/\1/p' pyproject.toml)
	.venv-docs/bin/twine upload dist/*

# The fast tests with the lowest versions that pyproject.toml allows, and no torch. Together they run 86 % of the lines;
# fewer than the floor means that something came without a fast test.
test-lowest: .venv-lowest/test
	.venv-lowest/bin/python -m pytest $(FAST) --cov=scotl_matgl --cov-report= --cov-fail-under=84

test-pyg: .venv-pyg/test
	.venv-pyg/bin/python -m pytest tests/test_encoders.py tests/test_encoders_pyg.py tests/test_own_models.py

# Each from its own folder's path and not installed, so that the zoos of one do not show in the tests of another.
test-plugins: .venv/plugins
	set -e; for plugin in $(PLUGINS); do PYTHONPATH=$$plugin $(BIN)/python -m pytest $$plugin/tests; done

# Longer than in CI: 100,000 formulas, and so many mutated files of each other kind.
FUZZ ?= 8000
fuzz: .venv/test
	SCOTL_MATGL_FUZZ_FORMULAS=100000 $(BIN)/python -m pytest tests/test_formulas.py -k 'mutated or any_text'
	SCOTL_MATGL_FUZZ=$(FUZZ) $(BIN)/python -m pytest -s tests/faults/test_fuzz.py tests/faults/test_crystal_files.py -k mutated
	SCOTL_MATGL_FUZZ_TABLES=10000 $(BIN)/python -m pytest tests/test_table_fuzz.py

# Published holes of the versions that are installed; says so where the service that knows them is not reached.
audit: .venv/test .venv-audit/pip-audit
	.venv-audit/bin/python .ci/audit.py $(BIN)/python

lint: .venv/plugins
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	set -e; for plugin in $(PLUGINS); do (cd $$plugin && MYPYPATH=../.. ../../$(BIN)/mypy); done

bench: .venv/test
	$(BIN)/python benchmarks/encoding.py
	$(BIN)/python benchmarks/estimators.py

.venv/base: pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed, this is " + sys.version'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# torch first and alone, so that the release that was measured is taken, and not what its dependents would pick.
.venv/test: .venv/base pyproject.toml
	$(BIN)/python -m pip install --quiet torch==$(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[matgl,test,parquet]'
	touch $@

# What the plugins need beyond the package itself.
.venv/plugins: .venv/test
	$(BIN)/python -m pip install --quiet h5py openpyxl
	touch $@

.venv-pyg/test: pyproject.toml
	test -x .venv-pyg/bin/python || $(PYTHON_PYG) -m venv .venv-pyg
	.venv-pyg/bin/python -m pip install --quiet --upgrade pip
	.venv-pyg/bin/python -m pip install --quiet torch==$(TORCH)
	.venv-pyg/bin/python -m pip install --quiet matgl==$(MATGL_PYG) --editable '.[test]'
	touch $@

.venv-docs/docs: pyproject.toml
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --upgrade pip
	.venv-docs/bin/python -m pip install --quiet --editable '.[docs]'
	touch $@

.venv-docs/dist: .venv-docs/docs
	.venv-docs/bin/python -m pip install --quiet --editable '.[docs,dist]'
	touch $@

# uv chooses the lowest versions, which pip cannot.
.venv-lowest/test: pyproject.toml
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --upgrade pip uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[test]'
	touch $@

.venv-audit/pip-audit:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --upgrade pip pip-audit
	touch $@

clean:
	rm -rf .venv .venv-pyg .venv-lowest .venv-audit .venv-docs .venv-3.12 .venv-3.13 site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
