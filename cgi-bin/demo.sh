#!/usr/bin/env bash
# The whole system on this machine: five shells with different manners, a SOCKS
# server, an Apache with the console. Prints one URL to open; Ctrl-C ends it all.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
built=${CARGO_TARGET_DIR:-target}/release
built=$(realpath -m "$built")

# Asked before five minutes of building rather than after.
PATH=$PATH:/usr/sbin:/usr/local/sbin
if ! command -v apache2 >/dev/null && ! command -v httpd >/dev/null; then
    echo "demo: there is no Apache here (Debian: apt install apache2)" >&2
    exit 1
fi

cargo build --release --bins --example shell_server
make --silent --no-print-directory cgi

# Everything written on the way; Apache's user must get through, too.
folder=$(mktemp -d)
chmod 755 "$folder"

# What runs: the name of each process.
declare -A names=()

# Ends everything; called when this script ends, however it does.
# shellcheck disable=SC2317
finish() {
    trap '' INT TERM HUP
    # No quotes: a list. Some may have ended by themselves.
    # shellcheck disable=SC2086
    ((${#names[@]} == 0)) || kill ${!names[*]} 2>/dev/null || true
    wait
    rm -rf "$folder"
}
trap finish EXIT
trap 'echo; exit 0' INT
trap 'exit 143' TERM HUP

# start NAME COMMAND...: in the background; what it says goes to a file. In a
# session of its own, so that Ctrl-C comes to this script alone, which then ends
# them all. If it cannot, being killed, the kernel does.
start() {
    : >"$folder/$1.log"
    setsid setpriv --pdeathsig TERM "${@:2}" >"$folder/$1.log" 2>&1 &
    names[$!]=$1
}

# died PID: says which one it was, and its last words.
died() {
    echo "demo: ${names[$1]} has ended; its last words:" >&2
    tail -n 5 "$folder/${names[$1]}.log" >&2
    exit 1
}

# answers PORT: does anybody listen there?
answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# until_it COMMAND...: waits until it succeeds, while the process just started
# lives.
until_it() {
    until "$@"; do
        kill -0 $! 2>/dev/null || died $!
        sleep 0.05
    done
}

# port_of NAME: sets $port to the one it says it listens on. All but Apache take
# a free one and say which, so nobody can be there first.
port_of() {
    local line='listening on 127[.]0[.]0[.]1:([0-9]+)'
    until_it grep -qE "$line" "$folder/$1.log"
    [[ $(<"$folder/$1.log") =~ $line ]]
    port=${BASH_REMATCH[1]}
}

# One switch per shell, and a batch file that shows what it does.
manners=("" --late-errors --split-prompt "--delay 300ms" --no-final-newline)
query=
ports=
for number in 1 2 3 4 5; do
    # No quotes: a switch and its value are two words, and "" is none.
    # shellcheck disable=SC2086
    start "shell$number" "$built/examples/shell_server" ${manners[number - 1]} 0
    port_of "shell$number"
    ports+=${ports:+,}$port
    query+="h$number=127.0.0.1&p$number=$port&f$number=t$number.txt&sh$number=127.0.0.1&sp$number=SOCKS&"
done

# These five, and nothing else.
echo "permit c 127.0.0.1 - 127.0.0.1 $ports" >"$folder/socks.conf"
start socks "$built/threadsocks" --bind 127.0.0.1 --config "$folder/socks.conf" --grace 1s 0
port_of socks
query=${query//SOCKS/$port}

# Apache has to be told a port.
port=${CONSOLE_PORT:-8080}
while answers "$port"; do
    port=$((port + 1))
done
mkdir -m 755 "$folder/run"
CONSOLE_PORT=$port CONSOLE_RUN=$folder/run start apache "$here/apache.sh"
until_it answers "$port"

echo
echo "Open this, and press Run (Ctrl-C here ends it all):"
echo
echo "http://127.0.0.1:$port/cgi-bin/console.cgi?${query}edit=1"
echo

# All of them are meant to stay.
wait -n -p ended || true
died "$ended"
