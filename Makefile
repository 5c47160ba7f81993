# Everything here runs on a bare Debian machine, as root. `make demo` and `make test` are all one needs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
WORKERS ?= 4
ARGS ?=
AS_COMPILED = $(addprefix tests/,http1 http2 rim kafka cassandra) --ignore tests/kafka/e2e --ignore tests/cassandra/e2e
C_FILES = $(wildcard sockmap/bpf/*.[ch] bench/*.[ch] bench/splice/*.[ch] tests/splice/programs/*.[ch])

.PHONY: help install compile demo demo-kafka demo-cassandra test bench lint type format clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## apt packages, kernel headers for bcc, .venv with the command l7proxy
	@scripts/install.sh

compile: ## machine code of what the workers run for each request, which costs a third less or more
	@scripts/install.sh compile

demo: install ## a short play: allowed, refused and audited requests, the flow log, the cost
	@$(BIN)/python -m demo

demo-kafka: ## the same with a Kafka broker: topics, one request in part, a policy that changes
	@scripts/install.sh kafka
	@$(BIN)/python -m demo.kafka

demo-cassandra: ## the same with a Cassandra: tables, words that say one thing and do another, a batch
	@scripts/install.sh cassandra
	@$(BIN)/python -m demo.cassandra

test: ## install what the tests need and run them all, privileged ones included (ARGS="-k name")
	@scripts/install.sh test
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)
	@echo "again, of what is compiled:"
	@L7PROXY_TEST_COMPILED=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(AS_COMPILED) $(ARGS) || [ $$? = 5 ]

bench: ## l7proxy beside a direct connection, HAProxy, nginx and Envoy; sockets and sidecars, spliced and not
	@scripts/install.sh bench
	@$(BIN)/python -m bench.run $(ARGS)

lint: ## ruff, clang-format and bash syntax
	@scripts/install.sh lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@clang-format --dry-run -Werror $(C_FILES)
	@bash -n scripts/*.sh .ci/run

type: ## mypy, strict
	@scripts/install.sh lint
	@$(BIN)/mypy

format: ## let ruff and clang-format write
	@scripts/install.sh lint
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .
	@clang-format -i $(C_FILES)

clean: ## remove what was built, .venv included
	@rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis bench/out
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
