# Everything one does with this repository. CI calls `lint` and `test`; both set up what they need.
#
# Variables: CONFIG=FILE for `make run`; PYTEST='-k tour -x' for `make test-e2e`;
# SCENARIO=kafka-killed and QUICK=1 for `make faults`; BENCH=… for `make bench-cost`; ABUSE='pings bomb' for
# `make bench-abuse`;
# SCENARIO=busy-12k, BUS=local and ARGS='--duration 1m' for `make loadtest`;
# KAFKA_PORT and the others of tools/kafka.sh; CARGO_TARGET_DIR as cargo takes it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

CONFIG ?=
PYTEST ?=
SCENARIO ?=
BENCH ?=
ABUSE ?=
BUS ?= kafka
ARGS ?=
target := $(or $(CARGO_TARGET_DIR),target)
python := .tools/venv/bin/python
python_sources := tests/e2e tests/faults tests/abuse docs/examples

.PHONY: help run build test test-unit test-e2e faults bench-cost bench-abuse loadtest lint docs fmt kafka kafka-stop setup clean

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

run: ## build and run the gateway: stations on port 9000, events in ./data (CONFIG=FILE for a configuration)
	@tools/packages.sh build
	cargo build --release --locked --package ocpp-gateway
	exec $(target)/release/ocpp-gateway run $(if $(CONFIG),--config $(CONFIG))

build: ## build the release binary
	@tools/packages.sh build
	cargo build --release --locked --package ocpp-gateway

test: test-unit test-e2e ## every test, against a real Kafka; does its own set-up

test-unit: ## the Rust tests of the workspace
	@tools/packages.sh build
	cargo test --workspace --locked --quiet

test-e2e: ## the built binary against real stations and a real Kafka (PYTEST='-k tour' for some of it)
	@tools/packages.sh build kafka test
	@tools/venv.sh
	@tools/ws.sh
	@tools/kafka.sh setup
	cargo build --locked --package ocpp-gateway --package ocpp-loadtest
	OCPP_GATEWAY_BIN=$(abspath $(target))/debug/ocpp-gateway tools/e2e.sh $(PYTEST)

faults: ## every outage and crash, for real, and what was lost (SCENARIO=gateway-killed for some of it, QUICK=1 for less; root)
	@tools/packages.sh build kafka test
	@tools/venv.sh
	@tools/kafka.sh setup
	cargo build --locked --package ocpp-gateway
	OCPP_GATEWAY_BIN=$(abspath $(target))/debug/ocpp-gateway PYTHONPATH=tests/e2e:tests $(python) -m faults $(SCENARIO)

bench-cost: ## what a connection and a message cost, beside servers that do less (BENCH='--rate 5000 --kafka 127.0.0.1:19092')
	@tools/packages.sh build
	cargo build --release --locked --package ocpp-gateway --package ocpp-benches
	taskset -c 1 $(target)/release/bench-cost compare --gateway $(target)/release/ocpp-gateway $(BENCH)

bench-abuse: ## what abuse costs, and what ordinary stations feel of it (ABUSE='pings bomb' for some of it; two cores)
	@tools/packages.sh build test
	@tools/venv.sh
	cargo build --release --locked --package ocpp-gateway --package ocpp-loadtest
	OCPP_GATEWAY_BIN=$(abspath $(target))/release/ocpp-gateway OCPP_LOADTEST_BIN=$(abspath $(target))/release/ocpp-loadtest \
		PYTHONPATH=tests/e2e:tests $(python) -m abuse $(ABUSE)

loadtest: ## 12,000 stations for ten minutes, verified, with a report in loadtest/out (SCENARIO=busy-12k, BUS=local, ARGS=…)
	@tools/packages.sh build $(if $(filter kafka,$(BUS)),kafka)
	cargo build --release --locked --package ocpp-gateway --package ocpp-loadtest
	BIN=$(abspath $(target))/release BUS=$(BUS) tools/loadtest.sh $(or $(SCENARIO),reference-12k) $(ARGS)

lint: ## formatting, clippy, layering, Python
	@tools/packages.sh build test
	@tools/venv.sh
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@tools/layering.sh
	@for script in tools/*.sh .ci/run; do bash -n "$$script"; done
	$(python) -m ruff check --quiet --config tests/e2e/ruff.toml $(python_sources)
	$(python) -m ruff format --quiet --check --config tests/e2e/ruff.toml $(python_sources)
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check licenses bans sources; fi

docs: ## generate docs/configuration.md, docs/metrics.md and deploy/ocpp-gateway.toml from the code
	@tools/packages.sh build
	cargo run --locked --quiet --package ocpp-pages

fmt: ## format everything
	@tools/venv.sh
	cargo fmt --all
	$(python) -m ruff format --quiet --config tests/e2e/ruff.toml $(python_sources)

kafka: ## start a real single-node Kafka on port 19092 (KAFKA_PORT=… for another)
	@tools/kafka.sh start

kafka-stop: ## stop it; its data stays
	@tools/kafka.sh stop

setup: ## install and fetch what build and tests need, and nothing else
	@tools/packages.sh build kafka test
	@tools/venv.sh
	@tools/ws.sh
	@tools/kafka.sh setup
	cargo fetch --locked

clean: ## stop Kafka and remove what was built and fetched; ./data stays
	@tools/kafka.sh stop
	rm -rf .tools
	cargo clean
