#!/usr/bin/env bash
# Runs Apache with apache.conf in the foreground, and prints the URL of the console.
# The script replaces itself by Apache (exec), so its PID is the PID of Apache, and
# the caller can signal Apache and wait for it.
#
#   CONSOLE_PORT  the TCP port [8080]
#   CONSOLE_RUN   the folder of PID file and socket [apache in the target folder]
#   Apache gets all arguments, for example -DCOMPRESSION.
set -euo pipefail

fail() {
    echo "apache.sh: $*" >&2
    exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
export CONSOLE_DIR=$here
export CONSOLE_PORT=${CONSOLE_PORT:-8080}
export CONSOLE_RUN=${CONSOLE_RUN:-${CARGO_TARGET_DIR:-$here/../target}/apache}

# On Debian the program is in a folder that may be missing from the PATH of a user.
# On other systems its name is httpd.
PATH=$PATH:/usr/sbin:/usr/local/sbin
apache=$(command -v apache2 || command -v httpd) ||
    fail "Apache is not installed (Debian: apt install apache2)"
for folder in "${APACHE_MODULES:-}" /usr/lib/apache2/modules /usr/lib64/httpd/modules; do
    [[ -e $folder/mod_cgid.so ]] && break
done
[[ -e $folder/mod_cgid.so ]] || fail "no folder with the modules of Apache found: set APACHE_MODULES=FOLDER"
export APACHE_MODULES=$folder

[[ -x $here/console.cgi ]] || fail "$here/console.cgi does not exist: run make cgi"
mkdir -p "$CONSOLE_RUN"
CONSOLE_RUN=$(cd "$CONSOLE_RUN" && pwd)

# Started by root, Apache changes to another user (User in apache.conf), who needs
# access to these paths.
if ((EUID == 0)); then
    user=$(awk '$1 == "User" { print $2 }' "$here/apache.conf")
    for path in "$here/console.cgi" "$CONSOLE_RUN"; do
        runuser -u "$user" -- test -x "$path" ||
            fail "started by root, Apache runs as user $user, who has no access to $path"
    done
fi

# Apache reports a used port as well, but does not name the variable to set.
if (exec 3<>"/dev/tcp/127.0.0.1/$CONSOLE_PORT") 2>/dev/null; then
    fail "port $CONSOLE_PORT is in use: set CONSOLE_PORT=$((CONSOLE_PORT + 1))"
fi

# Apache reopens /dev/stderr as its error log. The kernel refuses this after "sudo -u",
# or if stderr is a socket. A pipe of the own user can be reopened.
[[ -w /dev/stderr && ! -S /dev/stderr ]] || exec 2> >(exec cat >&2)

echo "http://127.0.0.1:$CONSOLE_PORT/cgi-bin/console.cgi"
exec "$apache" -f "$here/apache.conf" -DFOREGROUND "$@"
