#!/usr/bin/env bash
# Runs the whole system on loopback: five shell servers, four of them with an injected
# fault, a SOCKS server, and Apache with the console. Prints the URL to open. Ctrl-C
# terminates all processes.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
built=${CARGO_TARGET_DIR:-target}/release
built=$(realpath -m "$built")

# Checked first, because the build takes minutes.
PATH=$PATH:/usr/sbin:/usr/local/sbin
if ! command -v apache2 >/dev/null && ! command -v httpd >/dev/null; then
    echo "demo: Apache is not installed (Debian: apt install apache2)" >&2
    exit 1
fi

cargo build --release --bins --example shell_server
make --silent --no-print-directory cgi

# The folder of all logs and configuration files. The user of Apache needs access.
folder=$(mktemp -d)
chmod 755 "$folder"

# The running processes: PID to name.
declare -A names=()

# Terminates all processes, waits for them and removes the folder. The EXIT trap calls
# it at every end of this script.
# shellcheck disable=SC2317
finish() {
    trap '' INT TERM HUP
    # No quotes: a list of PIDs. A process that has already ended is no error.
    # shellcheck disable=SC2086
    ((${#names[@]} == 0)) || kill ${!names[*]} 2>/dev/null || true
    wait
    rm -rf "$folder"
}
trap finish EXIT
trap 'echo; exit 0' INT
trap 'exit 143' TERM HUP

# start NAME COMMAND...: starts a command in the background, with its output in a log
# file. setsid(1) puts it into a new session, so Ctrl-C sends SIGINT only to this
# script, which then terminates all processes. If SIGKILL ends this script, the kernel
# sends SIGTERM to each process (pdeathsig).
start() {
    : >"$folder/$1.log"
    setsid setpriv --pdeathsig TERM "${@:2}" >"$folder/$1.log" 2>&1 &
    names[$!]=$1
}

# fail_with_log PID: reports that a process has ended, with the end of its log.
fail_with_log() {
    echo "demo: ${names[$1]} has ended; the end of its log:" >&2
    tail -n 5 "$folder/${names[$1]}.log" >&2
    exit 1
}

# is_listening PORT: succeeds if a connection to the port on loopback succeeds.
is_listening() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# wait_until COMMAND...: polls until the command succeeds. Fails if the process that was
# started last ends.
wait_until() {
    until "$@"; do
        kill -0 $! 2>/dev/null || fail_with_log $!
        sleep 0.05
    done
}

# port_of NAME: sets $port to the port that the process has logged. All servers but
# Apache let the system choose a free port, so no other program can take it first.
port_of() {
    local line='listening on 127[.]0[.]0[.]1:([0-9]+)'
    wait_until grep -qE "$line" "$folder/$1.log"
    [[ $(<"$folder/$1.log") =~ $line ]]
    port=${BASH_REMATCH[1]}
}

# The fault of each shell server. The batch file of the same number shows its effect.
faults=("" --late-errors --split-prompt "--delay 300ms" --no-final-newline)
query=
ports=
for number in 1 2 3 4 5; do
    # No quotes: a switch and its value are two words, and "" is no word.
    # shellcheck disable=SC2086
    start "shell$number" "$built/examples/shell_server" ${faults[number - 1]} 0
    port_of "shell$number"
    ports+=${ports:+,}$port
    query+="h$number=127.0.0.1&p$number=$port&f$number=t$number.txt&sh$number=127.0.0.1&sp$number=SOCKS&"
done

# Rules that permit only the five shell servers.
echo "permit c 127.0.0.1 - 127.0.0.1 $ports" >"$folder/socks.conf"
start socks "$built/threadsocks" --bind 127.0.0.1 --config "$folder/socks.conf" --grace 1s 0
port_of socks
query=${query//SOCKS/$port}

# Apache cannot report a port that the system has chosen, so search a free one.
port=${CONSOLE_PORT:-8080}
while is_listening "$port"; do
    port=$((port + 1))
done
mkdir -m 755 "$folder/run"
CONSOLE_PORT=$port CONSOLE_RUN=$folder/run start apache "$here/apache.sh"
wait_until is_listening "$port"

echo
echo "Open this, and press Run (Ctrl-C here terminates everything):"
echo
echo "http://127.0.0.1:$port/cgi-bin/console.cgi?${query}edit=1"
echo

# No process should end by itself: the first that does is an error.
wait -n -p ended || true
fail_with_log "$ended"
