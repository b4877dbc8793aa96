#!/usr/bin/env bash
# Brings docker-compose.yml up without a Docker engine, runs a sweep through its proxy and kills both API processes in turn.
#
#   deploy/try.sh [--trials N] [--steps N]        # as root, after `make setup`; the exit status is 0 when nothing was lost
#
# Linux namespaces stand in for the engine: a network of its own for each container, a root that holds nothing but the
# system's libraries and this checkout (read-only where the file says so), user 10001 without capabilities. Everything
# that it writes lies on a file system in memory that only its processes see, and its processes cannot outlive it: when it
# ends, or is killed by whatever signal, nothing is left behind.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)

fail() { echo "deploy/try.sh: $*" >&2; exit 2; }

test "$(uname -s)" = Linux || fail "needs Linux: it makes namespaces"
test "$(id -u)" = 0 || fail "needs root to make networks: sudo deploy/try.sh (what it starts runs as user 10001)"
test -x "$root/.venv/bin/layersweep" || fail "there is no .venv: run 'make setup' first"

missing=()
for command in bwrap:bubblewrap caddy:caddy ip:iproute2 setpriv:util-linux unshare:util-linux wget:wget; do
  command -v "${command%%:*}" >/dev/null || missing+=("${command##*:}")
done
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
test ${#missing[@]} = 0 || fail "install first: apt-get install --no-install-recommends ${missing[*]}"

unshare --net --mount --pid --fork true 2>/dev/null || fail "this kernel, or the container around it, refuses namespaces"

cd "$root"
exec unshare --net --mount --ipc --pid --fork --mount-proc --kill-child=KILL \
  "$root/.venv/bin/python" -m deploy.rehearsal "$@"
