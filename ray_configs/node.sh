#!/usr/bin/env bash
# One machine with 8 GPUs, kept up for jobs that come from elsewhere:
#   ray_configs/node.sh start | stop                                                        on the machine
#   ssh -L 8265:127.0.0.1:8265 MACHINE                                                      on the laptop, kept open
#   RAY_AUTH_MODE=token resca submit prompts.txt --out s3://bucket/videos --model hunyuanvideo-community/HunyuanVideo \
#       --dashboard http://127.0.0.1:8265 --ulysses 8 --gangs auto
# Nothing but loopback is listened on, so the tunnel is the only way in; the token keeps the machine's other users out.
# Tokens are not encryption; the tunnel is. GPUS says how many there should be.
set -euo pipefail

if [[ ${1:-} == start ]]; then
    gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l) || true
    if ((gpus != ${GPUS:=8})); then
        echo "node.sh: $GPUS GPUs were expected, but nvidia-smi lists $gpus; with another number, set GPUS." >&2
        exit 1
    fi
    set -- "$@" --num-gpus="$GPUS" --labels=role=render
fi
exec "$(dirname "$0")/local.sh" "$@"
