# The two commands a newcomer needs are `make quickstart` and `make test`.

SHELL := /bin/bash
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/accrue
export CARGO_TARGET_DIR ?= $(CACHE)/target

.PHONY: help quickstart release test test-fast test-long certify sim torture soak bench deps fmt

help:
	@echo "make quickstart  build, load the sample CRM history, print and deliver the books"
	@echo "make release     the program as it is shipped: optimised for what it does in a run of the books; says where it is"
	@echo "make test        all tests, on the embedded log and on real servers"
	@echo "make test-fast   the tests that need no server"
	@echo "make sim         the pipeline and a sink under simulated faults: SEEDS=10000, FROM=0, or SEED=17 for one run with its log"
	@echo "make test-long   100,000 generated histories of each property of the books; half an hour"
	@echo "make certify     each accounting connector killed around every kind of write, against its double; minutes"
	@echo "make torture     three instances on a real broker, one killed, paused or cut off every few seconds: MINUTES=30 PROTOCOL=classic"
	@echo "make soak        state larger than memory: fails when the process takes more than its budget: MINUTES=10 MIB=192"
	@echo "make bench       records a second, CPU seconds per million records"

quickstart: deps
	cargo run --quiet -- quickstart
	@echo; echo 'To call what was built "accrue":  export PATH="$(CARGO_TARGET_DIR)/debug:$$PATH"'

release: deps
	tools/profiled build --release --bin accrue
	@echo "$(CARGO_TARGET_DIR)/profiled/release/accrue"

test: deps
	tools/test

test-fast: deps
	cargo test

sim: deps
	SEEDS=$(SEEDS) FROM=$(FROM) SEED=$(SEED) cargo test --quiet --test sim many_seeds -- --ignored --nocapture

# CASES and SEED can be given; the seed is that of the build, so that a failure can be repeated. Optimised: two minutes more to
# build, and far fewer to run.
test-long: deps
	CARGO_PROFILE_DEV_OPT_LEVEL=3 PROPTEST_CASES=$(or $(CASES),100000) PROPTEST_RNG_SEED=$(or $(SEED),606) \
		cargo test --test revenue_properties

# The lines are those of the table in docs/certification.md.
certify: deps
	cargo test --test certification -- --ignored --nocapture

# Both print what happened; ACCRUE_PLATFORM_KEEP=1 keeps the servers' and the program's logs.
torture: deps
	ACCRUE_TEST_FIRE_SECONDS=$$((60 * $(or $(MINUTES),30))) ACCRUE_TEST_GROUP_PROTOCOL=$(or $(PROTOCOL),classic) tools/on-platform kafka,registry,proxy \
		cargo test --test faults -- --ignored --nocapture three_instances_under_fire

soak: deps
	ACCRUE_TEST_SOAK_MINUTES=$(or $(MINUTES),10) ACCRUE_TEST_SOAK_MIB=$(or $(MIB),192) tools/on-platform kafka,registry \
		cargo test --test soak -- --ignored --nocapture

bench: deps
	tools/bench

# Installs what the build needs (Debian, as root), or says what to install.
deps:
	@tools/deps

fmt:
	cargo fmt
