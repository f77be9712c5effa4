# Tasks of the project: "make" builds, "make help" lists them.

# Where "make install" installs, and where it puts these files meanwhile.
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
ZSH_COMPLETIONS ?= $(PREFIX)/share/zsh/site-functions
# Debian's fish does not look into /usr/local/share.
FISH_COMPLETIONS ?= $(if $(filter /usr,$(PREFIX)),/usr/share/fish/vendor_completions.d,$(SYSCONFDIR)/fish/completions)

# The folder into which cargo builds.
TARGET = $(or $(CARGO_TARGET_DIR),target)
PROGRAM = $(TARGET)/release/threadsocks
RUN_PROGRAM = $(TARGET)/release/threadsocks-run

# Who builds the Debian packages: their field Maintainer.
MAINTAINER ?= $(shell git config user.name) <$(shell git config user.email)>
CARGO_DEB = 3.8.0

# Seconds for each fuzz target, and the folder for new inputs: they do not go into
# the corpus.
FUZZ_SECONDS ?= 60
FUZZ_FINDS = fuzz/target/finds

.PHONY: build help run test check others fuzz big soak labs bench cgi apache demo pictures packages install uninstall deb docker clean

build:
	cargo build --release

help:
	@echo "make           builds the server, the console and threadsocks-run"
	@echo "make run       starts the server on port 1080"
	@echo "make test      runs all tests; skips those whose programs are missing, and names the programs"
	@echo "make check     format, lints, tests and documentation: must pass before a commit"
	@echo "make others    checks that it compiles for FreeBSD and macOS (rustup target add ...)"
	@echo "make fuzz      runs each fuzz target for FUZZ_SECONDS [60] (cargo-fuzz, nightly compiler)"
	@echo "make big       transfers gigabytes: FTP through BIND; slow, stalled and reset streams; long pages in Chromium"
	@echo "make soak      ten minutes of mixed traffic, one of noise: checks for leaks; shorter: SOAK_SECONDS=20"
	@echo "make labs      puts each bug of the labs into a copy of the project, and runs their judge"
	@echo "make packages  builds and tests the Debian packages, the files of the image, and what cargo packs"
	@echo "make bench     measures it beside microsocks and Dante; BENCH=--full takes nine minutes"
	@echo "make demo      starts five shells, a SOCKS server and Apache on loopback; prints the URL to open"
	@echo "make cgi       builds the console as cgi-bin/console.cgi"
	@echo "make apache    builds the console and starts a private Apache with it, on CONSOLE_PORT [8080]"
	@echo "make pictures  takes screenshots of the console into docs/pictures (apache2, chromium)"
	@echo "make install   installs what make has built, below PREFIX [/usr/local] and SYSCONFDIR [/etc]; DESTDIR stages"
	@echo "make uninstall removes what make install has installed; edited files in SYSCONFDIR stay"
	@echo "make deb       makes the Debian packages of server and console, by MAINTAINER [of git] (cargo-deb)"
	@echo "make docker    builds the container image \"threadsocks\" (docker)"
	@echo "make clean     removes all build output"

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
	cargo test --release --test it -- --ignored --nocapture --test-threads=1 ftp_with gigabytes five_shells
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

# Tests that need a release build and cargo-deb.
packages:
	cargo test --test it -- --ignored --nocapture --test-threads=1 packages::

BIN = $(DESTDIR)$(PREFIX)/bin
MAN = $(DESTDIR)$(PREFIX)/share/man
BASH = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSH = $(DESTDIR)$(ZSH_COMPLETIONS)
FISH = $(DESTDIR)$(FISH_COMPLETIONS)
UNITS = $(DESTDIR)$(PREFIX)/lib/systemd/system
SYSUSERS = $(DESTDIR)$(PREFIX)/lib/sysusers.d
LICENCES = $(DESTDIR)$(PREFIX)/share/doc/threadsocks
RULES = $(DESTDIR)$(SYSCONFDIR)/threadsocks
DEFAULTS = $(DESTDIR)$(SYSCONFDIR)/default

# Builds nothing, so the build is not done by root. Files in SYSCONFDIR stay if they exist, since
# they may have been edited.
install:
	@test -x "$(PROGRAM)" || { echo "$(PROGRAM) does not exist: run make first, without sudo"; exit 1; }
	@test -x "$(RUN_PROGRAM)" || { echo "$(RUN_PROGRAM) does not exist: run make first, without sudo"; exit 1; }
	install -d "$(BIN)" "$(MAN)/man1" "$(MAN)/man5" "$(MAN)/man8" "$(BASH)" "$(ZSH)" "$(FISH)" "$(UNITS)" "$(SYSUSERS)" \
		"$(LICENCES)" "$(RULES)" "$(DEFAULTS)"
	install -m 755 "$(PROGRAM)" "$(BIN)/threadsocks"
	install -m 755 "$(RUN_PROGRAM)" "$(BIN)/threadsocks-run"
	install -m 644 docs/threadsocks-run.1 "$(MAN)/man1/threadsocks-run.1"
	install -m 644 docs/socks.conf.5 "$(MAN)/man5/socks.conf.5"
	install -m 644 docs/threadsocks.8 "$(MAN)/man8/threadsocks.8"
	"$(PROGRAM)" --completion bash >"$(BASH)/threadsocks"
	"$(PROGRAM)" --completion zsh >"$(ZSH)/_threadsocks"
	"$(PROGRAM)" --completion fish >"$(FISH)/threadsocks.fish"
	sed -e 's,/usr/local/bin/,$(PREFIX)/bin/,g' -e 's,/etc/threadsocks/,$(SYSCONFDIR)/threadsocks/,g' \
		-e 's,/etc/default/,$(SYSCONFDIR)/default/,g' docs/threadsocks.service >"$(UNITS)/threadsocks.service"
	install -m 644 docs/threadsocks.socket "$(UNITS)/threadsocks.socket"
	install -m 644 docs/threadsocks.sysusers "$(SYSUSERS)/threadsocks.conf"
	install -m 644 LICENSE-APACHE LICENSE-MIT "$(LICENCES)"
	chmod 644 "$(BASH)/threadsocks" "$(ZSH)/_threadsocks" "$(FISH)/threadsocks.fish" "$(UNITS)/threadsocks.service"
	$(call install-unless-there,socks.conf,$(RULES)/socks.conf)
	$(call install-unless-there,docs/threadsocks.default,$(DEFAULTS)/threadsocks)
	$(if $(DESTDIR),,$(next-steps))

install-unless-there = @if [ -e "$(2)" ]; then echo "$(2) exists and stays as it is"; \
	else echo "install -m 644 $(1) $(2)"; install -m 644 "$(1)" "$(2)"; fi

# systemd finds a unit outside /usr and /usr/local only by its path.
SERVICE = $(if $(filter /usr /usr/local,$(PREFIX)),threadsocks,$(UNITS)/threadsocks.service)

define next-steps
@echo
@echo "Next steps, as root, on a machine with systemd:"
@echo "  systemd-sysusers $(SYSUSERS)/threadsocks.conf"
@echo "  systemctl daemon-reload"
@echo "  systemctl enable --now $(SERVICE)"
@echo "Port, address and other options: edit $(DEFAULTS)/threadsocks"
@echo "Rules: edit $(RULES)/socks.conf; the next request uses the new rules"
@echo "After new options, or a new version of the program: systemctl restart threadsocks"
endef

uninstall:
	$(if $(DESTDIR),,$(refuse-while-in-use))
	rm -f "$(BIN)/threadsocks" "$(BIN)/threadsocks-run" "$(MAN)/man1/threadsocks-run.1" "$(MAN)/man5/socks.conf.5" "$(MAN)/man8/threadsocks.8" "$(BASH)/threadsocks" \
		"$(ZSH)/_threadsocks" "$(FISH)/threadsocks.fish" "$(UNITS)/threadsocks.service" \
		"$(UNITS)/threadsocks.socket" "$(SYSUSERS)/threadsocks.conf" \
		"$(LICENCES)/LICENSE-APACHE" "$(LICENCES)/LICENSE-MIT"
	$(call remove-unless-edited,socks.conf,$(RULES)/socks.conf)
	$(call remove-unless-edited,docs/threadsocks.default,$(DEFAULTS)/threadsocks)
	@rmdir "$(LICENCES)" "$(RULES)" 2>/dev/null || true

# The server would run on without its program, and the symbolic links of "enable" would stay.
define refuse-while-in-use
@if [ -e "$(UNITS)/threadsocks.service" ] && command -v systemctl >/dev/null; then \
	used=; for unit in threadsocks.service threadsocks.socket; do \
		if systemctl --quiet is-enabled $$unit || systemctl --quiet is-active $$unit; then used="$$used $$unit"; fi; \
	done 2>/dev/null; \
	if [ -n "$$used" ]; then echo "enabled or running:$$used; first: systemctl disable --now$$used"; exit 1; fi; fi
endef

# A file of another version counts as edited.
remove-unless-edited = @if cmp -s "$(1)" "$(2)"; then echo "rm $(2)"; rm "$(2)"; \
	elif [ -e "$(2)" ]; then echo "$(2) differs from $(1) and stays"; fi

# The folder from which cargo-deb takes all files but the programs.
STAGE = packaging/stage

# Packages of earlier versions are removed: "apt install ./threadsocks_*.deb" must find only one.
deb: export MAINTAINER := $(MAINTAINER)
deb: export CARGO_DEB := $(CARGO_DEB)
deb:
	@packaging/check-tools
	$(MAKE) --no-print-directory build
	rm -rf $(STAGE)
	rm -f "$(TARGET)"/debian/threadsocks_*.deb "$(TARGET)"/debian/threadsocks-console_*.deb
	$(MAKE) --no-print-directory install DESTDIR=$(STAGE) PREFIX=/usr SYSCONFDIR=/etc \
		ZSH_COMPLETIONS=/usr/share/zsh/vendor-completions
	version=$$(packaging/version) && for package in threadsocks threadsocks-console; do \
		sed -e "1s|@PACKAGE@ (.*)|$$package ($$version)|" -e "s|@PACKAGE@|$$package|" \
			-e "s|@MAINTAINER@|$$MAINTAINER|" packaging/debian/changelog >$(STAGE)/$$package.changelog && \
		cargo deb --no-build --package $$package --deb-version "$$version" --maintainer "$$MAINTAINER" || exit 1; \
	done

docker:
	docker build --tag threadsocks --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml) .

clean:
	cargo clean
	rm -rf $(STAGE)
