#!/usr/bin/env bash
# One machine: a Ray head that answers on loopback only, and only to those who have the token.
#   ray_configs/local.sh start [options of `ray start`]
#   RAY_AUTH_MODE=token resca submit prompts.txt --out "$PWD/videos" --dashboard http://127.0.0.1:8265
#   RAY_AUTH_MODE=token resca render prompts.txt --out videos --address 127.0.0.1:6379
#   ray_configs/local.sh stop
# Ports and places can be set: RAY_PORT, DASHBOARD_PORT, AGENT_PORT, CLIENT_PORT, METRICS_PORT, RESCA_RAY_DIR.
# Tokens are not encryption: over a network, reach the head through an SSH tunnel.
set -euo pipefail

dashboard_port=${DASHBOARD_PORT:-8265}
dashboard=http://127.0.0.1:$dashboard_port
directory=${RESCA_RAY_DIR:-/tmp/resca-$UID} # short: Ray's sockets lie in it, and their paths may have 107 characters
pid_file=$directory/pid
log=$directory/log
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=${RAY_USAGE_STATS_ENABLED:-0}

die() {
    echo "local.sh: $1" >&2
    exit 1
}

# The head leads a session of its own, so that all that it starts can be told from any other Ray here.
processes() { pgrep --session "$(<"$pid_file")" "$@" >/dev/null; }

# A process id outlives its process in the file, and may be another's by then.
is_running() { [[ -f $pid_file ]] && processes --full "$directory"; }

is_taken() { (: <>"/dev/tcp/127.0.0.1/$dashboard_port") 2>/dev/null; }

start() {
    mkdir -p "$directory"
    [[ -O $directory ]] || die "$directory belongs to someone else; choose another with RESCA_RAY_DIR."
    chmod 700 "$directory" # Ray opens its own part of it to everyone.
    is_running && die "it runs already: $dashboard"
    is_taken && die "port $dashboard_port is taken; choose another with DASHBOARD_PORT." # Ray would, silently.
    (umask 077 && ray get-auth-token --generate >/dev/null) # Ray itself would let everyone read it,
    [[ ! -O ~/.ray/auth_token ]] || chmod 600 ~/.ray/auth_token # and may have made it before.
    # Only where Ray takes this machine for one that forms no clusters does 127.0.0.1 stay what it is. And half a
    # minute, by default, would be too short to finish a video, so stopping does not wait for jobs.
    export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
    setsid ray start --head --block --temp-dir="$directory/ray" --node-ip-address=127.0.0.1 --port="${RAY_PORT:-6379}" \
        --dashboard-host=127.0.0.1 --dashboard-port="$dashboard_port" \
        --dashboard-agent-listen-port="${AGENT_PORT:-52365}" --ray-client-server-port="${CLIENT_PORT:-10001}" \
        --metrics-export-port="${METRICS_PORT:-8080}" "$@" </dev/null >"$log" 2>&1 &
    echo $! >"$pid_file"
    await_jobs
    cat <<TEXT
Ray runs: $dashboard, metrics at http://127.0.0.1:${METRICS_PORT:-8080}, token in ~/.ray/auth_token.
  RAY_AUTH_MODE=token resca submit prompts.txt --out "\$PWD/videos" --dashboard $dashboard
  RAY_AUTH_MODE=token resca render prompts.txt --out "\$PWD/videos" --address 127.0.0.1:${RAY_PORT:-6379}
TEXT
}

# Ready is when someone with the token is answered.
await_jobs() {
    local deadline=$((SECONDS + 60))
    until ray job list --address "$dashboard" >/dev/null 2>&1; do
        processes || die "Ray did not start: $(tail -n 3 "$log")"
        ((SECONDS < deadline)) || { stop && die "Ray did not answer at $dashboard within 60 s, see $log."; }
        sleep 1
    done
}

stop() {
    is_running || { echo "Nothing runs here." && return; }
    kill -TERM "$(<"$pid_file")" 2>/dev/null || true
    for _ in {1..20}; do
        processes || break
        sleep 1
    done
    pkill -KILL --session "$(<"$pid_file")" || true
    rm "$pid_file"
}

action=${1:-}
[[ $action == start || $action == stop ]] || die "say start or stop."
shift
"$action" "$@"
