# What there is to do; "make" alone says so.

PREFIX ?= /usr/local

.PHONY: help run test check big install clean

help:
	@echo "make run      the server on port 1080"
	@echo "make test     all tests (missing programs are named, their tests skipped)"
	@echo "make check    format, lints, tests, documentation: what must be green"
	@echo "make big      1.2 GB each way by FTP through BIND"
	@echo "make install  program and manual below PREFIX [$(PREFIX)]"
	@echo "make clean    removes what was built"

run:
	cargo run --release -- 1080

test:
	cargo test

check:
	cargo fmt --all --check
	cargo clippy --all-targets -- -D warnings
	cargo test
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

big:
	cargo test --release --test it -- --ignored --nocapture ftp_with

install:
	cargo build --release
	install -D -m 755 target/release/threadsocks $(DESTDIR)$(PREFIX)/bin/threadsocks
	install -D -m 644 docs/threadsocks.1 $(DESTDIR)$(PREFIX)/share/man/man1/threadsocks.1

clean:
	cargo clean
