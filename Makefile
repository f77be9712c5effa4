# Tasks of the project; "make" without a target lists them.

PREFIX ?= /usr/local

# The folder into which cargo builds.
TARGET = $(or $(CARGO_TARGET_DIR),target)

# Seconds for each fuzz target, and the folder for new inputs: they do not go into
# the corpus.
FUZZ_SECONDS ?= 60
FUZZ_FINDS = fuzz/target/finds

.PHONY: help run test check others fuzz big soak labs bench cgi apache demo pictures install clean

help:
	@echo "make run      starts the server on port 1080"
	@echo "make test     runs all tests; skips those whose programs are missing, and names the programs"
	@echo "make check    format, lints, tests and documentation: must pass before a commit"
	@echo "make others   checks that it compiles for FreeBSD and macOS (rustup target add ...)"
	@echo "make fuzz     runs each fuzz target for FUZZ_SECONDS [60] (cargo-fuzz, nightly compiler)"
	@echo "make big      transfers gigabytes: FTP through BIND; fragmented, slow, stalled and reset streams"
	@echo "make soak     ten minutes of mixed traffic, one of noise: checks for leaks; shorter: SOAK_SECONDS=20"
	@echo "make labs     puts each bug of the labs into a copy of the project, and runs their judge"
	@echo "make bench    measures it beside microsocks and Dante; BENCH=--full takes nine minutes"
	@echo "make demo     starts five shells, a SOCKS server and Apache on loopback; prints the URL to open"
	@echo "make cgi      builds the console as cgi-bin/console.cgi"
	@echo "make apache   builds the console and starts a private Apache with it, on CONSOLE_PORT [8080]"
	@echo "make pictures takes screenshots of the console into docs/pictures (apache2, chromium)"
	@echo "make install  installs program and manual below PREFIX [$(PREFIX)]"
	@echo "make clean    removes all build output"

run:
	cargo run --release -- 1080

test:
	cargo test

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

others:
	cargo check --lib --bins --target x86_64-unknown-freebsd
	cargo check --lib --bins --target x86_64-apple-darwin

fuzz:
	@cargo fuzz --version >/dev/null 2>&1 || \
		{ echo "cargo-fuzz is missing: cargo install cargo-fuzz"; exit 1; }
	@cargo +nightly --version >/dev/null 2>&1 || \
		{ echo "the nightly compiler is missing: rustup toolchain install nightly --profile minimal"; exit 1; }
	@for target in $$(cargo fuzz list); do \
		echo "== $$target"; \
		mkdir -p $(FUZZ_FINDS)/$$target; \
		cargo +nightly fuzz run $$target $(FUZZ_FINDS)/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -print_final_stats=1 || exit 1; \
	done

big:
	cargo test --release --test it -- --ignored --nocapture --test-threads=1 ftp_with gigabytes
	cargo test --release --test it -- f11_

soak:
	cargo test --release --test it -- --ignored --nocapture --test-threads=1 three_hundred minute_of_noise everything_at_once

labs:
	cargo test --test it -- --ignored --nocapture --test-threads=1 the_judge_of_the_labs

bench:
	cargo bench --bench load -- $(or $(BENCH),--quick)

cgi:
	cargo build --release --package threadsocks-console
	install -m 755 $(TARGET)/release/threadsocks-console cgi-bin/console.cgi

apache: cgi
	cgi-bin/apache.sh

demo:
	cgi-bin/demo.sh

pictures:
	cargo test --test it -- --ignored --nocapture pictures

install:
	cargo build --release
	install -D -m 755 target/release/threadsocks $(DESTDIR)$(PREFIX)/bin/threadsocks
	install -D -m 644 docs/threadsocks.8 $(DESTDIR)$(PREFIX)/share/man/man8/threadsocks.8

clean:
	cargo clean
