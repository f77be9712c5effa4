#!/usr/bin/env bash
# An Apache with apache.conf in the foreground; prints where the console is.
# This script becomes Apache: who started it can wait for it, and stop it.
#
#   CONSOLE_PORT  [8080]
#   CONSOLE_RUN   pid file and socket [a folder among what cargo builds]
#   further arguments are given to Apache, as -DCOMPRESSION
set -euo pipefail

fail() {
    echo "apache.sh: $*" >&2
    exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
export CONSOLE_DIR=$here
export CONSOLE_PORT=${CONSOLE_PORT:-8080}
export CONSOLE_RUN=${CONSOLE_RUN:-${CARGO_TARGET_DIR:-$here/../target}/apache}

# Debian has it in a folder that only root's PATH may name; others call it httpd.
PATH=$PATH:/usr/sbin:/usr/local/sbin
apache=$(command -v apache2 || command -v httpd) ||
    fail "there is no Apache here (Debian: apt install apache2)"
for folder in "${APACHE_MODULES:-}" /usr/lib/apache2/modules /usr/lib64/httpd/modules; do
    [[ -e $folder/mod_cgid.so ]] && break
done
[[ -e $folder/mod_cgid.so ]] || fail "where are Apache's modules? Say APACHE_MODULES=FOLDER"
export APACHE_MODULES=$folder

[[ -x $here/console.cgi ]] || fail "no $here/console.cgi yet: make cgi"
mkdir -p "$CONSOLE_RUN"
CONSOLE_RUN=$(cd "$CONSOLE_RUN" && pwd)

# Apache leaves root behind (User in apache.conf), and then needs a way in.
if ((EUID == 0)); then
    user=$(awk '$1 == "User" { print $2 }' "$here/apache.conf")
    for need in "$here/console.cgi" "$CONSOLE_RUN"; do
        runuser -u "$user" -- test -x "$need" ||
            fail "started by root, Apache goes on as $user, who cannot reach $need"
    done
fi

# Apache would say so too, in its own words.
if (exec 3<>"/dev/tcp/127.0.0.1/$CONSOLE_PORT") 2>/dev/null; then
    fail "port $CONSOLE_PORT is taken; say CONSOLE_PORT=$((CONSOLE_PORT + 1))"
fi

# Apache opens its stderr anew as the error log; after "sudo -u", or if stderr is
# a socket, it may not. A pipe of its own it may.
[[ -w /dev/stderr && ! -S /dev/stderr ]] || exec 2> >(exec cat >&2)

echo "http://127.0.0.1:$CONSOLE_PORT/cgi-bin/console.cgi"
exec "$apache" -f "$here/apache.conf" -DFOREGROUND "$@"
