#!/usr/bin/env bash
# Test under Slurm, one process per GPU. Set GPUS, GPUS_PER_NODE,
# CPUS_PER_TASK and SRUN_ARGS ("--time=8:00:00 --qos=long") as needed.
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]" >&2
    exit 2
fi
TOOLS=$(cd "$(dirname "$0")" && pwd)
GPUS=${GPUS:-8}
if [ "$GPUS" -lt 8 ]; then FULL_NODE=$GPUS; else FULL_NODE=8; fi
read -ra SRUN_ARGS <<< "${SRUN_ARGS:-}"

PYTHONPATH="$TOOLS/..:$PYTHONPATH" exec srun \
    --partition "$1" \
    --job-name "$2" \
    --gres "gpu:${GPUS_PER_NODE:-$FULL_NODE}" \
    --ntasks "$GPUS" \
    --ntasks-per-node "${GPUS_PER_NODE:-$FULL_NODE}" \
    --cpus-per-task "${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit 1 \
    "${SRUN_ARGS[@]}" \
    "${PYTHON:-python}" -u "$TOOLS/test.py" "$3" "$4" \
    --launcher slurm "${@:5}"
