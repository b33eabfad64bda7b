# make demo: two nodes on this machine, a file server that moves between them.
# make test: every test, the lab included (needs root).
# make bench: a table of outages and costs, each beside another of the same run (needs root).
# make sim:  the simulator. SEEDS=100000: so many runs. SEED=7: one run with its whole trace.
# make sharp: deliberate faults in the core, each of which the simulator must catch.
# make model: the model checker, deeper than in the tests: SECONDS for each search.
# make fuzz: every parser against mutated input, TIME seconds each (60).
# make deb:  a Debian package in target/debian. PROFILE=lab builds it quickly.

PROFILE ?= release
SECONDS ?= 900
export SEED SEEDS FROM
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -E env PATH=$(PATH))

.PHONY: bench deb demo fuzz model sharp sim test tools

tools:
	tests/lab/prepare.sh

deb: tools
	cargo deb --profile $(PROFILE) --no-strip

demo: tools
	$(MAKE) deb PROFILE=lab
	cargo build --profile lab --example demo --example agent
	$(SUDO) target/lab/examples/demo

test: tools
	tests/lab/prepare.sh qemu-system-x86
	cargo fmt --check
	rustfmt --check --edition 2024 tests/sim/engine/main.rs
	cargo clippy --all-targets -- -D warnings
	$(MAKE) deb PROFILE=lab
	cargo build --example agent
	$(SUDO) cargo test --lib --test cli --test config --test fuzz --test house --test io --test scenarios
	cargo test --no-run --test model --test sim --test sharp --test lab
	tests/beside.sh $(SUDO)

bench: tools
	$(MAKE) deb
	cargo build --example agent
	$(SUDO) cargo bench --profile dev --bench table -- $(WORDS)

sim:
	cargo test --quiet --test sim

sharp:
	cargo test --quiet --test sharp

model:
	cargo test --release --test model -- --deep --seconds $(SECONDS)

fuzz:
	fuzz/run.sh
