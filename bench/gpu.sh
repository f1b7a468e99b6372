#!/usr/bin/env bash
# What can only be seen on a GPU, in three parts of less than ten minutes each:
#
#   bench/gpu.sh OUT test      builds the wheel; the tests: on the GPU, at random shapes, on the CPU
#   bench/gpu.sh OUT sanitize  the random shapes, a few, under each tool of compute-sanitizer
#   bench/gpu.sh OUT bench     training steps, kernels and accuracy beside PyTorch, and the goals
#
# Nothing is fetched, no step ends the others, and each has its time. OUT gets summary.txt, a log a
# step in PART-logs.tar.gz, the wheel, and the results as JSON.
#
# PYTHON          an interpreter with NumPy, pytest, hypothesis and, for bench, PyTorch (python3)
# WHEEL           a wheel that was built before (default: one in OUT, or a new one)
# WHEELS          a folder of wheels that PYTHON lacks
# OPTIONS         more of `python -m bench`'s for the measurements: --quick tries this script out
# CHAINRULE_DATA  the folder that holds all of MNIST; without it what needs it is left out
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

say() { printf '%s\n' "$*" | tee -a "$out/summary.txt"; }

# step NAME SECONDS COMMAND...: a line of the summary, and a log; shorter where little time is left.
step() {
  local name=$1 limit=$2 began=$SECONDS code word
  shift 2
  ((limit > deadline - SECONDS)) && limit=$((deadline - SECONDS))
  if ((limit < 5)); then
    say "$(printf '%-12s %-20s NO TIME LEFT' "$part" "$name")"
    failures=$((failures + 1))
    return
  fi
  # `timeout` runs commands, not functions of this shell.
  declare -F "$1" > /dev/null && set -- bash -c '"$@"' "$1" "$@"
  timeout --kill-after=10 "$limit" "$@" > "$work/logs/$name.log" 2>&1
  code=$?
  case $code in
    0) word="ok" ;;
    124 | 137) word="TIME IS UP" ;;
    *) word="FAILED ($code)" ;;
  esac
  [ $code -eq 0 ] || failures=$((failures + 1))
  say "$(printf '%-12s %-20s %-12s %4d s  %s' "$part" "$name" "$word" $((SECONDS - began)) \
    "$(grep -v '^ *$' "$work/logs/$name.log" | tail -n 1 | cut -c 1-120)")"
  tar -czf "$out/$part-logs.tar.gz" -C "$work/logs" .
}

has() { "$python" -c "import $1" 2> /dev/null; }

facts() {
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

look() {
  (cd "$work" && "$python" -c "
import chainrule
print('chainrule', chainrule.__version__, 'from', chainrule.__file__)
print(chainrule.cuda.why_off() or chainrule.cuda.description())
raise SystemExit(bool(chainrule.cuda.why_off()))")
}

prepare() {  # the package under $work/site, for everything behind it
  export PYTHONPATH="$work/site${PYTHONPATH:+:$PYTHONPATH}"
  step facts 30 facts
  local wheel=${WHEEL:-$(find "$out" -maxdepth 1 -name 'chainrule-*.whl' | head -n 1)}
  if [ -z "$wheel" ]; then
    step build 280 build
    wheel=$(find "$out" -maxdepth 1 -name 'chainrule-*.whl' | head -n 1)
  fi
  step install 60 install "$wheel"
  step look 60 look
}

tests() {  # tests NAME SECONDS PROCESSES ARGUMENTS...
  local name=$1 limit=$2 processes=$3 chosen=(-p no:cacheprovider -p no:benchmark)
  shift 3
  # One that hangs should not take the others' time.
  has pytest_timeout && chosen+=(--timeout 100)
  ((processes > 1)) && has xdist && chosen+=(-n "$processes")
  step "$name" "$limit" "$python" -m pytest -q "${chosen[@]}" "$@"
}

measure() {  # measure NAME SECONDS GROUP ARGUMENTS...
  local name=$1 limit=$2 group=$3
  shift 3
  step "$name" "$limit" "$python" -m bench "$group" --device cuda --peer torch --rounds 7 \
    --threads "$(nproc)" --json "$out/cuda-$group.json" "${options[@]}" "$@"
}

export -f facts build install look
export python out work

case $part in
  test)
    deadline=560
    prepare
    tests gpu 100 1 tests/cuda/test_cuda_array.py tests/cuda/test_cuda_training.py
    CHAINRULE_CUDA_SHAPES=${CHAINRULE_CUDA_SHAPES:-200} tests random 150 8 tests/cuda/test_cuda_random.py
    tests operations 200 8 tests -k "cuda and not cuda_"
    # One of the CPU's backends: CI goes through all.
    CHAINRULE_BACKEND=$("$python" -c "import chainrule; print(chainrule.info()['backend'])") \
      CHAINRULE_TEST_CUDA=0 tests cpu 250 16 tests -k "not cuda"
    ;;
  sanitize)
    deadline=420
    prepare
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null)
    if [ -z "$sanitizer" ]; then
      say "sanitize     compute-sanitizer IS NOT HERE: nothing was checked by it"
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
    measure kernels 110 kernels matmul softmax sgd dropout max_pool linear
    if [ -n "${CHAINRULE_DATA:-}" ]; then
      measure mnist 100 training mnist
      step accuracy 45 "$python" -m bench accuracy --device cuda --json "$out/cuda-accuracy.json"
    else
      say "bench        CHAINRULE_DATA IS NOT SET: no seconds to 99 %, no accuracy"
    fi
    # Compiling is worth least here: the products are one call of a library.
    measure convolutions 200 kernels conv2d --no-compile
    step goals 20 "$python" -m bench goals --device cuda --json "$out/cuda-kernels.json" \
      --json "$out/cuda-training.json"
    cat "$work/logs/goals.log" >> "$out/summary.txt"
    ;;
  *)
    say "gpu.sh: the part must be test, sanitize or bench, got $part"
    exit 2
    ;;
esac
say "$(printf '%-12s %d steps not ok, %d s in all' "$part" "$failures" "$SECONDS")"
exit $((failures > 0))
