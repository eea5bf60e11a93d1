#!/usr/bin/env bash
# Everything that is to be measured on a GPU, in one go of about 45 minutes, written to OUT:
#
#     bash benchmarks/gpu.sh OUT [NERF_LEGO]
#
# speed_*.json: steps and frames of the paper's and the small preset in each precision, compiled and not. With
# NERF_LEGO, the folder of NeRF-synthetic's Lego scene (nothing is downloaded): 25 minutes (or $MINUTES) of training on
# it at 512 pixels with the paper's settings in TF32; metrics.json and comparison.png of its test views. A speed that
# cannot be measured is named at the end, the others go on.
#
# It has not been run on a GPU yet, only on a CPU with tiny sizes (TINY=1 bash benchmarks/gpu.sh OUT NERF_LEGO).
set -euo pipefail
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    echo "usage: bash benchmarks/gpu.sh OUT [NERF_LEGO]" >&2
    exit 2
fi
mkdir -p "$1"
out=$(realpath "$1")
lego=${2:+$(realpath "$2")}
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}

if [ -n "${TINY:-}" ]; then
    device=cpu presets=small precisions="fp32 bf16" compile="" repeats=1 minutes=${MINUTES:-0.5}
    sidelength=64 size="--img_sidelength 64 --proj_sidelength 16 --grid_dim 8 --num_grid_feats 4 --nf0 4"
else
    device=cuda presets="small paper" precisions="fp32 tf32 bf16" compile="--compile" repeats=15 minutes=${MINUTES:-25}
    sidelength=512 size="--precision tf32"
fi

failed=""
speed() {
    name=speed_$(echo "$*" | tr -d -- - | tr ' ' _)
    "$python" -m benchmarks.speed --device $device --repeats $repeats --json "$out/$name.json" \
        --preset "$1" --precision "$2" ${3:-} 2>&1 | tee "$out/$name.txt" || failed="$failed $name"
}
for preset in $presets; do
    for precision in $precisions; do
        speed "$preset" "$precision"
        if [ -n "$compile" ]; then speed "$preset" "$precision" "$compile"; fi
    done
done

if [ -n "$lego" ]; then
    [ -d "$out/lego" ] || "$python" -m scenes.nerf_synthetic "$lego" "$out/lego" --sidelength $sidelength
    code=0
    timeout --signal=TERM ${minutes}m "$python" run_deepvoxels.py --train_test train --data_root "$out/lego/train" \
        --logging_root "$out/runs" --experiment_name lego --device $device $size || code=$?
    [ $code -eq 0 ] || [ $code -eq 124 ] || exit 1  # 124: timeout asked training to stop, which then saved
    checkpoint=$(ls -t "$out"/runs/logs/*/*_lego/latest.pth | head -n 1)
    "$python" run_deepvoxels.py --train_test test --data_root "$out/lego/test" --logging_root "$out/runs" \
        --experiment_name lego --device $device --checkpoint "$checkpoint"
    test_run=$(ls -td "$out"/runs/test_traj/*/*_lego | head -n 1)
    cp "$test_run/metrics.json" "$test_run/comparison.png" "$out"
    realpath "$checkpoint" >"$out/checkpoint.txt"
fi
if [ -n "$failed" ]; then
    echo "failed:$failed; see their .txt in $out" >&2
    exit 1
fi
echo "look at $out"
