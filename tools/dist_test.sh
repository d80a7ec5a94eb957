#!/usr/bin/env bash
# Test with several processes: one per GPU, or on the CPU where there is none.
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT.
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT PROCESSES [options of test.py]" >&2
    exit 2
fi
TOOLS=$(cd "$(dirname "$0")" && pwd)

PYTHONPATH="$TOOLS/..:$PYTHONPATH" exec "${PYTHON:-python}" \
    -m torch.distributed.run \
    --nnodes "${NNODES:-1}" \
    --node_rank "${NODE_RANK:-0}" \
    --master_addr "${MASTER_ADDR:-127.0.0.1}" \
    --master_port "${PORT:-29500}" \
    --nproc_per_node "$3" \
    "$TOOLS/test.py" "$1" "$2" --launcher pytorch "${@:4}"
