#!/usr/bin/env bash
# Render on Slurm: one Ray node on each Slurm node, the batch on the first.
#   sbatch --nodes=4 --gpus-per-node=8 ray_configs/slurm.sh prompts.txt /shared/videos --ulysses 8 --gangs 4
#SBATCH --job-name=resca
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
source .venv/bin/activate

prompts=$1 out=$2
shift 2
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
head_address=$(srun --nodes=1 --ntasks=1 -w "$head_node" hostname --ip-address | awk '{print $1}'):6379

srun --nodes=1 --ntasks=1 -w "$head_node" ray start --head --port=6379 --dashboard-host=127.0.0.1 --block &
sleep 10
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head_node" \
        ray start --address="$head_address" --block &
    sleep 10
fi
resca render "$prompts" --out "$out" --address "$head_address" "$@"
