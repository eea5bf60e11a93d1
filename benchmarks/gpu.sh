#!/usr/bin/env bash
# What is to be measured on a GPU, in stages of at most 9 minutes, 28 in all, the most telling first; results in OUT:
#
#     bash benchmarks/gpu.sh STAGE OUT [SCENE]
#
#     agree     does a training step agree with the CPU's (agree.txt)? The paper's preset in each precision
#               (speed_*.json)
#     train     8 minutes ($MINUTES) of training on SCENE, an imported scene folder (SCENE/train, SCENE/test), at 512
#               pixels with the fast recipe in TF32; repeated, it goes on where it stopped
#     test      SCENE's test views from what was trained: metrics.json, comparison.png, video.mp4
#     compile   the paper's preset compiled and as one CUDA graph; the small preset (speed_*.json)
#
# STEPS is the length of the whole training, over which the learning rate falls (60000).
# A scene is imported beforehand: python -m scenes.nerf_synthetic nerf_synthetic/lego lego --sidelength 512
# A speed that cannot be measured, or for which no time is left, is named at the end, and the others go on.
# It has not been run on a GPU yet, only on a CPU with tiny sizes (TINY=1).
set -euo pipefail
usage() { echo "usage: bash benchmarks/gpu.sh agree|train|test|compile OUT [SCENE]" >&2; exit 2; }
[ $# -ge 2 ] && [ $# -le 3 ] || usage
stage=$1
case $stage in agree | compile) [ $# -eq 2 ] || usage ;; train | test) [ $# -eq 3 ] || usage ;; *) usage ;; esac
if [ "$stage" = test ] && [ ! -d "$2/runs/logs" ]; then
    echo "benchmarks/gpu.sh: error: $2: nothing was trained there; train first" >&2
    exit 2
fi
scene=${3:+$(realpath "$3")}
mkdir -p "$2"
out=$(realpath "$2")
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}

if [ -n "${TINY:-}" ]; then
    device=cpu paper=small precisions="fp32 bf16" repeats=1
    run="--device cpu --img_sidelength 64 --proj_sidelength 16 --grid_dim 8 --num_grid_feats 4 --nf0 4 --max_steps 40"
else
    device=cuda paper=paper precisions="fp32 tf32 bf16" repeats=5
    run="--device cuda --precision tf32 --max_steps ${STEPS:-60000}"
fi

failed=""
speed() {
    name=speed_$(echo "$*" | tr -d -- - | tr ' ' _)
    timeout $((SECONDS < 500 ? 510 - SECONDS : 10)) "$python" -m benchmarks.speed --device $device --repeats $repeats --json "$out/$name.json" \
        --preset "$1" --precision "$2" ${3:-} 2>&1 | tee "$out/$name.txt" || failed="$failed $name"
}

case $stage in
agree)
    "$python" -m benchmarks.agreement --preset small --device $device 2>&1 | tee "$out/agree.txt" ||
        failed="$failed agree"
    for precision in $precisions; do speed $paper "$precision"; done
    ;;
train)
    code=0
    timeout --signal=TERM "${MINUTES:-8}m" "$python" run_deepvoxels.py --train_test train --data_root "$scene/train" \
        --logging_root "$out/runs" --resume auto --recipe fast --validate_every 1000 $run || code=$?
    [ $code -eq 0 ] || [ $code -eq 124 ] || exit 1  # 124: timeout asked training to stop, which then saved
    ;;
test)
    "$python" run_deepvoxels.py --train_test test --data_root "$scene/test" --logging_root "$out/runs" \
        --device $device --checkpoint latest
    tested=$(ls -td "$out"/runs/test_traj/*/* | head -n 1)
    cp "$tested/metrics.json" "$tested/comparison.png" "$tested/video.mp4" "$out"
    ;;
compile)
    if [ $device = cuda ]; then
        for precision in tf32 bf16; do speed $paper $precision --graph; done
        for precision in tf32 bf16; do speed $paper $precision --compile; done
    fi
    for precision in $precisions; do speed small "$precision"; done
    ;;
esac
if [ -n "$failed" ]; then
    echo "failed:$failed; see their .txt in $out" >&2
    exit 1
fi
echo "look at $out"
