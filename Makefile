# make demo: two nodes on this machine, a file server that moves between them.
# make test: every test, the lab included (needs root).
# make bench: a table of outages and costs, each beside another of the same run (needs root).
# make fuzz: every parser against mutated input, TIME seconds each (60).
# make model: the model checker, deeper than in the tests: SECONDS for each search.
# make deb:  a Debian package in target/debian. PROFILE=lab builds it quickly.

PROFILE ?= release
SECONDS ?= 900
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -E env PATH=$(PATH))

.PHONY: bench demo test fuzz model deb tools

tools:
	tests/lab/prepare.sh

deb: tools
	cargo deb --profile $(PROFILE) --no-strip

demo: tools
	$(MAKE) deb PROFILE=lab
	cargo build --example demo --example agent
	$(SUDO) target/debug/examples/demo

bench: tools
	$(MAKE) deb
	cargo build --example agent
	$(SUDO) cargo bench --profile dev --bench table -- $(WORDS)

test: tools
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	$(MAKE) deb PROFILE=lab
	cargo build --example agent
	$(SUDO) cargo test --lib --test config --test fuzz --test house --test io --test scenarios
	cargo test --test model
	$(SUDO) cargo test --test lab

fuzz:
	fuzz/run.sh

model:
	cargo test --release --test model -- --deep --seconds $(SECONDS)
