# lxpy. Variables: PREFIX (virtual environment), BINDIR (where the commands go), PYTHON, K (pytest -k),
# VM_RUN (see tests/vm/run.sh)

PREFIX  ?= /opt/lxpy
BINDIR  ?= /usr/local/bin
PYTHON  ?= /usr/bin/python3
K       ?=
VM_RUN  ?=
CRASH_POINTS ?= 50
export PREFIX BINDIR PYTHON

bin    := $(PREFIX)/bin
pytest := PYTHONPATH=. $(bin)/python -m pytest -q $(if $(K),-k '$(K)')

.PHONY: help install demo check format test test-unit test-system test-conformance conformance fuzz crash reference test-vm bench bench-storage checkpoint-matrix uninstall clean develop

help:
	@echo 'make install     everything lxpy needs, and lxpy: commands in $(BINDIR), the rest in $(PREFIX)'
	@echo 'make demo        install, then launch a Debian 13 container and enter it'
	@echo 'make check       format, lint, types, import rules, unit tests'
	@echo 'make test        check, then the system and conformance tests (root)'
	@echo 'make conformance all suites of clients made for LXD'
	@echo 'make crash       kill -9 at CRASH_POINTS (50) moments of every storage operation'
	@echo 'make fuzz        20000 requests made of the API description'
	@echo 'make bench       lxpy beside LXD on this machine'
	@echo 'make bench-storage  its storage beside LXD and Incus'
	@echo 'make reference   docs/reference.md and docs/openapi.json, from the declarations'
	@echo 'make checkpoint-matrix  what can be saved with its memory; writes docs/checkpoint-support.md'
	@echo 'make uninstall   remove lxpy; PURGE=1 removes the instances, too'

install:
	@packaging/install.sh install

develop:
	@packaging/install.sh develop

demo: install
	@packaging/demo.sh

check: develop
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy
	PYTHONPATH=. $(bin)/lint-imports --no-cache --no-logo
	$(pytest) tests/unit

format: develop
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

test: check test-system test-conformance

test-unit: develop
	$(pytest) tests/unit

test-system: develop
	$(pytest) tests/system

test-conformance: develop
	$(pytest) tests/conformance

conformance: develop
	LXPY_CONFORMANCE=all $(pytest) tests/conformance

fuzz: develop
	$(pytest) -s tests/fuzz

crash: develop
	LXPY_CRASH_POINTS=$(CRASH_POINTS) $(pytest) tests/system/test_storage_crash.py tests/system/test_snapshot_crash.py

reference: develop
	PYTHONPATH=. $(PREFIX)/bin/python -m tests.reference

test-vm: develop
	@[ -n '$(VM_RUN)' ] || { echo 'make test-vm VM_RUN=PROGRAM: see tests/vm/run.sh' >&2; exit 2; }
	tests/vm/run.sh $(VM_RUN)

bench: develop
	PYTHONPATH=. benchmarks/run.sh

bench-storage: develop
	benchmarks/storage.sh

checkpoint-matrix: develop
	$(pytest) tests/checkpoint

uninstall:
	@packaging/uninstall.sh

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
