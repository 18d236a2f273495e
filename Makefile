# The two commands a newcomer needs are `make quickstart` and `make test`.

SHELL := /bin/bash
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/accrue
export CARGO_TARGET_DIR ?= $(CACHE)/target

.PHONY: help quickstart test test-fast sim bench deps fmt

help:
	@echo "make quickstart  build, load the sample CRM history, print the books"
	@echo "make test        all tests, on the embedded log and on real servers"
	@echo "make test-fast   the tests that need no server"
	@echo "make sim         the runtime under simulated faults: SEEDS=10000, FROM=0, or SEED=17 for one run with its log"
	@echo "make bench       records a second, CPU seconds per million records"

quickstart: deps
	cargo run --quiet -- quickstart

test: deps
	tools/test

test-fast: deps
	cargo test

sim: deps
	SEEDS=$(SEEDS) FROM=$(FROM) SEED=$(SEED) cargo test --quiet --test sim many_seeds -- --ignored --nocapture

bench: deps
	tools/bench

# Installs what the build needs (Debian, as root), or says what to install.
deps:
	@tools/deps

fmt:
	cargo fmt
