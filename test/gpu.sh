#!/usr/bin/env bash
# gpu.sh: one command for a machine with an NVIDIA GPU.
#
# Fetches what is needed, builds, runs the tests that need a GPU and prints a
# table of speed and memory. The exit status is 0 only if all of it passed:
#
#   0  everything passed        2  this machine has no usable NVIDIA GPU
#   1  a test failed            3  something could not be fetched or built
#
# CUDA_VISIBLE_DEVICES chooses the GPU; the first visible one is used.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'gpu: %s\n' "$*"; }

die() {
	printf 'gpu: %s\n' "$2" >&2
	exit "$1"
}

if ! command -v nvidia-smi >/dev/null; then
	die 2 "no NVIDIA driver here: nvidia-smi is not on the PATH. Nothing was tested. Run this on a machine with a GPU, or in a container started with --gpus all."
fi
if ! gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>&1) || [ -z "$gpu" ]; then
	die 2 "nvidia-smi finds no GPU: ${gpu:-no output}. Nothing was tested."
fi
say "GPUs:"
printf '%s\n' "$gpu"

make --no-print-directory onnx-cuda build || die 3 "could not fetch or build; see above"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
make --no-print-directory test-gpu 2>&1 | tee "$log" || status=1

# A run in which no test ran must not look like one that passed.
passed=$(grep -c '^--- PASS: TestGPU' "$log" || true)
failed=$(grep -c '^--- FAIL: ' "$log" || true)
say "$passed tests passed, $failed failed"
grep '^gpu-table:' "$log" | sed 's/^gpu-table: */  /' || say "no table: the measurement did not run"
if [ "$passed" -lt 7 ]; then
	die 1 "want at least 7 tests to pass"
fi
[ "$status" -eq 0 ] || die 1 "the tests failed; see above"
say "all passed on the GPU"
