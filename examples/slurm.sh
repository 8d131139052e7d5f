#!/bin/bash
# A training on several machines under Slurm: sbatch examples/slurm.sh recipe.toml
# Each machine runs one torchrun, which starts one process per device; the runs folder lies on a disk that all see.
#SBATCH --job-name=danlu
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

RECIPE="${1:?usage: sbatch examples/slurm.sh RECIPE [key=value ...]}"
shift
DEVICES="${SLURM_GPUS_ON_NODE:-1}"
HEAD="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"

# Two minutes before the time is up Slurm sends SIGTERM: all processes save, and the job that is queued again goes on.
srun torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node "$DEVICES" \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$HEAD:29500" \
    --max-restarts 3 \
    -m danlu run "$RECIPE" system.parallel=fsdp "$@"
