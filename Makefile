# Two commands: `make demo` shows the main job, `make test` proves it. Both set up what they need.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
PIVOTAL_SHARED ?= $(abspath ../shared)

.PHONY: help demo test lint bench setup

help:
	@echo "make demo   set up, replay a synthetic drive, send it over DDS to a running node, show where the pictures are"
	@echo "make test   set up and run every test (golden data in $(PIVOTAL_SHARED) when it is there)"
	@echo "make lint   format check, clippy and docs with warnings denied"
	@echo "make bench  stage and program benchmarks, printed as ratios to the plain versions"

setup:
	@scripts/setup-libtorch.sh

demo: setup
	@scripts/demo.sh

test: setup
	@scripts/setup-peers.sh
	@scripts/test.sh

lint: setup
	cargo fmt --check
	cargo clippy --all-targets --features r2r-doc-only -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items

bench: setup
	cargo bench
