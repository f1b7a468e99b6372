#!/usr/bin/env bash
# Everything that requires a GPU, in three parts of less than ten minutes each:
#
#   bench/gpu.sh OUT test      build the wheel; run the tests on the GPU, with random shapes, on the CPU
#   bench/gpu.sh OUT sanitize  run a few random shapes under each tool of compute-sanitizer
#   bench/gpu.sh OUT bench     measure training steps, kernels and accuracy, compare with the goals
#
# Nothing is downloaded. Each step has a time limit, and a failed step does not stop the others.
# OUT receives summary.txt, one log per step in PART-logs.tar.gz, the wheel, and results as JSON.
#
# PYTHON          an interpreter with NumPy, pytest, hypothesis and, for bench, PyTorch (python3)
# WHEEL           an existing wheel (default: the one in OUT; if there is none, build it)
# WHEELS          a folder of wheels that PYTHON does not have installed
# OPTIONS         more options of `python -m bench`; with --quick the script only checks itself
# CHAINRULE_DATA  the folder of the full MNIST; if unset, steps that require it are skipped
set -u
[ $# -eq 2 ] || { sed -n '2,/^set/p' "$0" | grep '^#'; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
part=$2
cd "$(dirname "$0")/.." || exit
python=${PYTHON:-python3}
read -ra options <<< "${OPTIONS:-}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/logs"
failures=0
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

log() { printf '%s\n' "$*" | tee -a "$out/summary.txt"; }

# step NAME SECONDS COMMAND...: run a command with a time limit, which also ends before `deadline`.
# Write its output to a log and its result to the summary.
step() {
  local name=$1 limit=$2 began=$SECONDS code result
  shift 2
  ((limit > deadline - SECONDS)) && limit=$((deadline - SECONDS))
  if ((limit < 5)); then
    log "$(printf '%-12s %-20s NO TIME LEFT' "$part" "$name")"
    failures=$((failures + 1))
    return
  fi
  # `timeout` cannot run shell functions.
  declare -F "$1" > /dev/null && set -- bash -c '"$@"' "$1" "$@"
  timeout --kill-after=10 "$limit" "$@" > "$work/logs/$name.log" 2>&1
  code=$?
  case $code in
    0) result="ok" ;;
    124 | 137) result="TIMED OUT" ;;
    *) result="FAILED ($code)" ;;
  esac
  [ $code -eq 0 ] || failures=$((failures + 1))
  log "$(printf '%-12s %-20s %-12s %4d s  %s' "$part" "$name" "$result" $((SECONDS - began)) \
    "$(grep -v '^ *$' "$work/logs/$name.log" | tail -n 1 | cut -c 1-120)")"
  tar -czf "$out/$part-logs.tar.gz" -C "$work/logs" .
}

has() { "$python" -c "import $1" 2> /dev/null; }

info() {
  nvidia-smi
  nvcc --version
  "$python" --version
  "$python" -c "import torch; print('torch', torch.__version__, torch.backends.cudnn.version())"
  git log -1 --format='commit %h %s'
}

build() {
  "$python" -m pip wheel -q --no-index --no-deps --no-build-isolation -w "$out" . \
    -C cmake.define.CHAINRULE_CUDA=ON -C build-dir="$work/build"
}

install() {
  local extra=()
  [ -n "${WHEELS:-}" ] && extra=("$WHEELS"/*.whl)
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target "$work/site" "$1" "${extra[@]}"
}

check_gpu() {
  (cd "$work" && "$python" -c "
import chainrule
print('chainrule', chainrule.__version__, 'from', chainrule.__file__)
print(chainrule.cuda.why_off() or chainrule.cuda.description())
raise SystemExit(bool(chainrule.cuda.why_off()))")
}

prepare() {  # install the package in $work/site for the following steps
  export PYTHONPATH="$work/site${PYTHONPATH:+:$PYTHONPATH}"
  step info 30 info
  local wheel=${WHEEL:-$(find "$out" -maxdepth 1 -name 'chainrule-*.whl' | head -n 1)}
  if [ -z "$wheel" ]; then
    step build 280 build
    wheel=$(find "$out" -maxdepth 1 -name 'chainrule-*.whl' | head -n 1)
  fi
  step install 60 install "$wheel"
  step check_gpu 60 check_gpu
}

tests() {  # tests NAME SECONDS PROCESSES ARGUMENTS...
  local name=$1 limit=$2 processes=$3 flags=(-p no:cacheprovider -p no:benchmark)
  shift 3
  # A test that hangs must not use up the time of the others.
  has pytest_timeout && flags+=(--timeout 100)
  ((processes > 1)) && has xdist && flags+=(-n "$processes")
  step "$name" "$limit" "$python" -m pytest -q "${flags[@]}" "$@"
}

measure() {  # measure NAME SECONDS GROUP ARGUMENTS...
  local name=$1 limit=$2 group=$3
  shift 3
  step "$name" "$limit" "$python" -m bench "$group" --device cuda --peer torch --rounds 7 \
    --threads "$(nproc)" --json "$out/cuda-$group.json" "${options[@]}" "$@"
}

export -f info build install check_gpu
export python out work

case $part in
  test)
    deadline=560
    prepare
    tests gpu 100 1 tests/cuda/test_cuda_array.py tests/cuda/test_cuda_training.py
    CHAINRULE_CUDA_SHAPES=${CHAINRULE_CUDA_SHAPES:-200} tests random 150 8 tests/cuda/test_cuda_random.py
    tests operations 200 8 tests/ops -k cuda
    # One CPU backend only. CI tests all of them.
    CHAINRULE_BACKEND=$("$python" -c "import chainrule; print(chainrule.info()['backend'])") \
      CHAINRULE_TEST_CUDA=0 tests cpu 250 16 tests -k "not cuda"
    ;;
  sanitize)
    deadline=420
    prepare
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null)
    if [ -z "$sanitizer" ]; then
      log "sanitize     compute-sanitizer NOT FOUND: nothing was checked"
      failures=$((failures + 1))
    else
      export CHAINRULE_CUDA_SHAPES=${CHAINRULE_CUDA_SHAPES:-8}
      for tool in memcheck racecheck synccheck initcheck; do
        step "$tool" 90 "$sanitizer" --tool "$tool" --error-exitcode 9 --print-limit 20 \
          "$python" -m pytest -q -p no:cacheprovider -p no:benchmark tests/cuda/test_cuda_random.py
      done
    fi
    ;;
  bench)
    deadline=565
    prepare
    measure steps 180 training cnn lenet mlp mlp-8x
    measure kernels 110 kernels matmul softmax sgd adam dropout max_pool linear
    if [ -n "${CHAINRULE_DATA:-}" ]; then
      measure mnist 100 training mnist
      step accuracy 45 "$python" -m bench accuracy --device cuda --json "$out/cuda-accuracy.json"
    else
      log "bench        CHAINRULE_DATA NOT SET: mnist-99 and accuracy skipped"
    fi
    # torch.compile has little effect here, because a convolution is one library call.
    measure convolutions 200 kernels conv2d --no-compile
    step goals 20 "$python" -m bench goals --device cuda --json "$out/cuda-kernels.json" \
      --json "$out/cuda-training.json"
    cat "$work/logs/goals.log" >> "$out/summary.txt"
    ;;
  *)
    log "gpu.sh: the part must be test, sanitize or bench, got $part"
    exit 2
    ;;
esac
log "$(printf '%-12s %d steps failed, %d s in total' "$part" "$failures" "$SECONDS")"
exit $((failures > 0))
