# sparkfleet: `make demo` shows the main job on disposable hosts, `make test` runs every test.
.DEFAULT_GOAL := help
.PHONY: help setup lab demo audit test acceptance unit lint format docs bench peers clean

PYTHON := .venv/bin/python
LINT := .venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
# A file at a time for each core, so that what its tests share is made once; in their order, as few long tests must not
# come last (xdist would begin with the files that have most). The story on hosts is one after the other.
UNIT := .venv/bin/pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder tests/unit
# A lab of its own for tests: the hosts of `make demo` stay as a person left them.
TEST_LAB := SPARKFLEET_LAB=.lab/test SPARKFLEET_LAB_PORT=2301

help: ## what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

setup: ## make .venv, from uv.lock by hash
	@.ci/setup

lab: setup ## install what lab hosts need (mmdebstrap, qemu), after asking
	@$(PYTHON) -m tests.lab setup

demo: lab ## bring up two lab hosts, deploy, break, repair: the main job, to watch
	@$(PYTHON) -m tests.demo

audit: setup ## ask every host of the fleet file (FLEET=...) how its protection stands
	@.venv/bin/sparkfleet audit --fleet $${FLEET:-inventories/lab.yaml}

lint: setup ## ruff and mypy --strict
	@$(LINT)

unit: setup ## tests that need no host
	@$(UNIT)

test: setup ## everything that CI runs: lint, unit tests, integration tests on lab hosts
	@$(PYTHON) -m tests.lab setup --tests
	@# Images are built and hosts booted while lint and unit tests run; what fails there is told by the first test with a host.
	@$(TEST_LAB) $(PYTHON) -m tests.lab up >/dev/null 2>&1 & \
	$(LINT) && $(UNIT) --durations=10 && $(TEST_LAB) .venv/bin/pytest --durations=20 tests/integration

acceptance: setup ## the long tail: every fault at every moment, hours without KVM
	@$(PYTHON) -m tests.lab setup --acceptance
	@$(TEST_LAB) .venv/bin/pytest tests/acceptance

bench: lab ## what a deploy and an audit cost, beside pyinfra and testinfra themselves (quiet machine, please)
	@$(PYTHON) -m tests.bench.deploy
	@$(PYTHON) -m tests.bench.audit
	@$(PYTHON) -m tests.bench.audit_reports
	@$(PYTHON) -m tests.bench.launcher

peers: setup ## make .venv-bench: Ansible and Mitogen by hash, for python -m tests.bench.fleet
	@.venv/bin/uv venv --quiet --clear --no-managed-python .venv-bench
	@.venv/bin/uv pip sync --quiet --require-hashes --python .venv-bench/bin/python tests/bench/requirements.txt

format: setup ## let ruff format the code
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

docs: setup ## write the pages that are generated from the code
	@$(PYTHON) -m sparkfleet.docs

clean: ## delete the lab's hosts and caches of tools; the built images stay
	@if [ -x $(PYTHON) ]; then for lab in .lab .lab/test; do SPARKFLEET_LAB=$$lab $(PYTHON) -m tests.lab delete --all; done; fi
	@rm -rf .lab .mypy_cache .ruff_cache .pytest_cache .hypothesis
