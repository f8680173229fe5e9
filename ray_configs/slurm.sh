#!/usr/bin/env bash
# On Slurm: a Ray of the job's own on all its nodes, and the batch on the first of them.
#   sbatch --nodes=4 --gpus-per-node=8 ray_configs/slurm.sh prompts.txt /shared/videos \
#       --model hunyuanvideo-community/HunyuanVideo --ulysses 8 --gangs auto
# What follows prompts and output goes to `resca render`; with `scaling` in their place, to `resca scaling`:
#   sbatch --nodes=4 --gpus-per-node=8 ray_configs/slurm.sh scaling --layouts 8x1,8x2,8x4 --gangs 2,4 \
#       --model hunyuanvideo-community/HunyuanVideo --out /shared/scaling --report /shared/scaling-report
# Submit from the root of a checkout on storage that all nodes
# share; its .venv is used, or else what is in PATH. Nodes are taken whole, also their memory (--mem=0), and need as many
# CPUs as the first one has.
# A node that does not start is left out. Before its time limit the job is told to stop, and what is finished stays:
# submit the same again and it goes on. RESCA_INTERFACE (ib0, say) chooses the network where nodes have several.
# The token is made for this job and readable by its owner only, but it is not encryption: use it on a private network.
# A --ring over several nodes needs InfiniBand, or other RDMA, on them: see README.md.
#SBATCH --job-name=resca
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:TERM@60
set -euo pipefail
if [[ ${1:-} != scaling ]] && (($# < 2)); then
    echo "usage: sbatch --nodes=N --gpus-per-node=8 ray_configs/slurm.sh PROMPTS OUT [options of resca render]," \
        "or scaling [its options] instead" >&2
    exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}"
# shellcheck source=/dev/null
[[ -f .venv/bin/activate ]] && source .venv/bin/activate
if ! type -P ray resca >/dev/null; then
    echo "slurm.sh: no ray and resca in $PWD/.venv or in PATH; submit from the root of a checkout that has them." >&2
    exit 2
fi

if [[ $1 == scaling ]]; then
    command=(scaling)
    shift
else
    command=(render "$1" --out "$2" --yes)
    shift 2
fi
readonly START_TIMEOUT_S=300 INFRASTRUCTURE=33
port=${RAY_PORT:-6379}
declare -A workers=() # node: process id of its srun
head="" render="" joined=0

say() { echo "slurm.sh: $*" >&2; }
fail() { say "$*" && exit $INFRASTRUCTURE; }
is_running() { [[ -n $1 ]] && kill -0 "$1" 2>/dev/null; }

clean_up() {
    trap '' TERM
    local pid
    for pid in "${workers[@]}" $head; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    wait
    rm -rf "$private"
}

# The addresses of a host without loopback, which a host's own name often stands for.
own_address() {
    if [[ -n ${RESCA_INTERFACE:-} ]]; then
        ip -4 -brief address show dev "$RESCA_INTERFACE" | awk '{sub("/.*", "", $3); print $3}'
    else
        hostname --all-ip-addresses | awk '{print $1}'
    fi
}

num_nodes() {
    timeout 60 python - "$address" <<'PYTHON' 2>/dev/null || echo 0
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(sum(node["Alive"] for node in ray.nodes()))
PYTHON
}

start_head() {
    ray start --head --block --node-ip-address="$ip" --port="$port" --dashboard-host=127.0.0.1 \
        --dashboard-port="${DASHBOARD_PORT:-8265}" --metrics-export-port="${METRICS_PORT:-8080}" \
        --disable-usage-stats &
    head=$!
    until ray health-check --address "$address" >/dev/null 2>&1; do
        is_running "$head" || fail "Ray did not start on $(hostname), the first node."
        ((SECONDS < START_TIMEOUT_S)) || fail "Ray on $(hostname) did not answer within $START_TIMEOUT_S s."
        sleep 1
    done
}

start_workers() {
    local node
    for node in "$@"; do
        # The one task of a step would be bound to one core.
        srun --nodes=1 --ntasks=1 --nodelist="$node" --cpus-per-task="$SLURM_CPUS_ON_NODE" --cpu-bind=none \
            ray start --address="$address" --block &
        workers[$node]=$!
    done
}

# Until every node has joined whose process still lives; those that take too long may join later.
await_workers() {
    local node
    while joined=$(num_nodes) && ((joined < 1 + ${#workers[@]} && SECONDS < START_TIMEOUT_S)); do
        is_running "$head" || fail "Ray has stopped on $(hostname), the first node."
        for node in "${!workers[@]}"; do
            is_running "${workers[$node]}" && continue
            say "node $node did not start, the batch goes on without it."
            unset "workers[$node]"
        done
        sleep 1
    done
    say "rendering on $joined of ${#nodes[@]} nodes"
}

# `wait` returns early when the trap has run; the render's own exit code is what counts.
await_render() {
    local code=0
    wait "$render" || code=$?
    while is_running "$render"; do
        code=0
        wait "$render" || code=$?
    done
    return $code
}

mkdir -p "$HOME/.resca"
private=$(mktemp -d "$HOME/.resca/job-${SLURM_JOB_ID:-0}-XXXXXX")
trap clean_up EXIT
trap '[[ -z $render ]] && exit 143; kill -TERM "$render"' TERM
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/token
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")

# Gloo and NCCL guess the interface as well.
[[ -n ${RESCA_INTERFACE:-} ]] && export GLOO_SOCKET_IFNAME=$RESCA_INTERFACE NCCL_SOCKET_IFNAME=$RESCA_INTERFACE
ip=$(own_address)
[[ -n $ip ]] || fail "$(hostname) has no address${RESCA_INTERFACE:+ on $RESCA_INTERFACE}."
address=$ip:$port
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

start_head
start_workers "${nodes[@]:1}" # A batch script runs on the first node of its job.
await_workers
resca "${command[@]}" --address "$address" "$@" &
render=$!
await_render
