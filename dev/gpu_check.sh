#!/bin/bash
# Checks the CUDA library on a GPU box that has a driver, nvcc, bash, python3 and PyTorch, and no network:
#
#   dev/gpu_check.sh [--build] STAGE...      env probe ops golden graph sanitize bench profile, or all
#
# It runs what "deno task gpu:pack" packed into dist/gpu (another folder: NANOCHAT_GPU_PACK). --build compiles the library there with
# nvcc first. A stage ends within 8 minutes, writes its full output to OUT/<stage>.txt (OUT: dist/gpu/out) and prints a table of at
# most 30 lines; one that fails does not stop the next. NC_CUDA_EMU=1 runs probe, ops, golden and graph on the emulation, without a GPU.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P) || exit 1
pack=${NANOCHAT_GPU_PACK:-$root/dist/gpu}
app=$pack/app
export OUT=${OUT:-$pack/out}
readonly STAGES="env probe ops golden graph sanitize bench profile"
readonly STAGE_SECONDS=470 LINES_SHOWN=30
readonly WITHIN="timeout -k 5 440" PART="timeout -k 5 90" # a whole stage, and one of five: so that its table comes all the same
backend=cuda
[ "${NC_CUDA_EMU:-}" = 1 ] && backend=cuda_emu
export NC_TEST_BACKEND=$backend NANOCHAT_GOLDEN=$pack/golden DENO_NO_UPDATE_CHECK=1 NO_COLOR=1
readonly RUN="--quiet --no-prompt --no-config --no-lock --no-remote --no-npm --allow-all"

nanochat() { "$pack/deno" run $RUN "$app/bin/nanochat.js" "$@"; }

unpack() {
  local name
  for name in deno golden app; do
    [ "$pack/$name" -nt "$pack/$name.tar.xz" ] && continue
    python3 - "$pack/$name.tar.xz" "$pack" <<'PY' || return 1
import sys, tarfile
with tarfile.open(sys.argv[1], "r:xz") as archive:
    archive.extractall(sys.argv[2])
PY
    touch "$pack/$name"
  done
}

# Compiles the library and the probe with this machine's nvcc for this machine's GPU.
build() {
  local capability arch include objects=$OUT/objects
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
  case $capability in 9* | 1*) arch=${capability}a ;; *) arch=$capability ;; esac
  include=$(python3 "$root/dev/gpu/env.py" nccl-include)
  mkdir -p "$objects/probe"
  local flags=(-std=c++17 -O3 -Werror all-warnings "-gencode=arch=compute_$arch,code=sm_$arch" -Xcompiler -fPIC,-fvisibility=hidden)
  [ -n "$include" ] && flags+=(-I "$include")
  cd "$root/kernels_cu" || return 1
  printf '%s\n' *.cu probe/probe.cu | xargs -P "$(nproc)" -I{} nvcc "${flags[@]}" -c {} -o "$objects/{}.o" || return 1
  nvcc -shared -cudart static "$objects"/*.cu.o -o "$app/libnanochat_cuda.so" -ldl -lpthread -lrt &&
    nvcc -cudart static "$objects"/*.cu.o "$objects/probe/probe.cu.o" -o "$app/probe_nanochat_cuda" -ldl -lpthread -lrt
}

stage_env() {
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit --format=csv,noheader || return 1
  python3 "$root/dev/gpu/env.py"
  nanochat doctor | grep -E '^(CUDA|will be used|to do)'
}

# Lines of each wrapper that differ from what the emulation printed when this was packed.
stage_probe() {
  "$app/probe_nanochat_$backend" >"$OUT/probe_found.txt" || return 1
  python3 - "$pack/probe_expected.txt" "$OUT/probe_found.txt" <<'PY'
import collections, itertools, sys
expected, found = (open(path).read().splitlines() for path in sys.argv[1:])
lines, wrong = collections.Counter(), collections.Counter()
for a, b in itertools.zip_longest(expected, found, fillvalue="missing"):
    name = (a if a != "missing" else b).split()[0]
    lines[name] += 1
    if a != b:
        wrong[name] += 1
        if wrong[name] <= 3:
            print(f"expected {a}\nfound    {b}")
for name in lines:
    print(f"{name:18} {lines[name]:5} lines, {wrong[name]} differ")
sys.exit(1 if wrong or not lines else 0)
PY
}

conformance() {
  local file status=0 from=$SECONDS
  for file in "$@"; do
    $PART "$pack/deno" test $RUN "$app/src/tensor/$file.js" >"$OUT/$file.txt" 2>&1 || status=1
    grep -E '\.\.\. FAILED' "$OUT/$file.txt" | head -4
    printf '%-22s %s\n' "$file" "$(grep -E '^(ok|FAILED) \|' "$OUT/$file.txt" || echo "no end: $(grep -c '\.\.\. ok' "$OUT/$file.txt") tests passed")"
  done
  return $status
}

stage_ops() {
  local status=0
  $PART "$pack/deno" run $RUN "$app/bin/nanochat.js" selftest --device-type=cuda >"$OUT/selftest.txt" 2>&1 || status=1
  printf '%-22s %s of %s operations\n' selftest "$(grep -c ' ok$' "$OUT/selftest.txt")" "$(grep -cE ' (ok|FAILED.*)$' "$OUT/selftest.txt")"
  grep FAILED "$OUT/selftest.txt" | head -8
  conformance ops_test ops_products_test ops_attention_test ops_inference_test || status=1
  return $status
}

stage_graph() { conformance ops_graph_test; }

stage_golden() {
  local status
  $WITHIN "$pack/deno" run $RUN "$app/dev/parity/main.js" gpt_tiny gpt_small gpt_mqa kv_cache optim train_run >"$OUT/parity.txt" 2>&1
  status=$?
  grep '^FAIL' "$OUT/parity.txt" | head -12
  grep -E '^[a-z_]+: [0-9]+ passed|^[0-9]+ passed' "$OUT/parity.txt" || tail -3 "$OUT/parity.txt"
  return $status
}

stage_sanitize() {
  local tool status=0
  for tool in memcheck racecheck synccheck initcheck; do
    timeout -k 5 105 compute-sanitizer --tool $tool --target-processes all --error-exitcode 9 \
      "$pack/deno" run $RUN "$app/bin/nanochat.js" selftest --device-type=cuda >"$OUT/$tool.txt" 2>&1
    case $? in
      0) printf '%-10s clean\n' $tool ;;
      124 | 137) printf '%-10s out of time, %s\n' $tool "$(grep -c '^========= [A-Z].* at ' "$OUT/$tool.txt") reports so far" ;;
      *) status=1; printf '%-10s FAILED: %s\n' $tool "$(grep -m1 -E 'ERROR SUMMARY|rror' "$OUT/$tool.txt" || tail -1 "$OUT/$tool.txt")" ;;
    esac
  done
  return $status
}

# Ours, PyTorch, ours, in one run on one machine.
stage_bench() {
  local depth=12 T=1024 B=16 V=32768 status=0
  ours() {
    nanochat bench train --device-type=cuda --dtype=bf16 --depth=$depth --max-seq-len=$T --device-batch-size=$B --vocab-size=$V --json
  }
  ours >"$OUT/bench_ours_1.json" 2>"$OUT/bench_ours_1.err" || status=1
  python3 "$root/dev/bench/peer_torch.py" --device cuda --dtype bf16 --depth $depth --seq $T --batch $B --vocab $V --steps 20 \
    >"$OUT/bench_torch.json" 2>"$OUT/bench_torch.err" || status=1
  ours >"$OUT/bench_ours_2.json" 2>"$OUT/bench_ours_2.err" || status=1
  nanochat bench infer --device-type=cuda --dtype=bf16 --depth=$depth --json >"$OUT/bench_infer.json" 2>"$OUT/bench_infer.err" || status=1
  python3 - "$OUT" <<'PY'
import json, os, sys
for name in ["bench_ours_1", "bench_torch", "bench_ours_2", "bench_infer"]:
    try:
        figures = json.loads(open(os.path.join(sys.argv[1], name + ".json")).read().strip().splitlines()[-1])
        shown = {k: round(v, 1) if isinstance(v, float) else v for k, v in figures.items() if k.endswith(("per_sec", "_ms", "_s", "_bytes")) or k in ("device", "mfu")}
        print(f"{name:14} " + ", ".join(f"{key} {value}" for key, value in shown.items()))
    except (OSError, ValueError, IndexError):
        print(f"{name:14} FAILED: " + (open(os.path.join(sys.argv[1], name + ".err")).read().strip().splitlines() or ["no output"])[-1])
PY
  return $status
}

stage_profile() {
  local metrics=gpu__time_duration.sum,sm__throughput.avg.pct_of_peak_sustained_elapsed,gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed
  ncu --clock-control none --target-processes all --launch-skip 200 --launch-count 150 --metrics $metrics --csv \
    "$pack/deno" run $RUN "$app/bin/nanochat.js" bench train --device-type=cuda --dtype=bf16 --depth=4 --max-seq-len=1024 \
    --device-batch-size=8 --vocab-size=32768 --steps=1 >"$OUT/ncu.csv" 2>"$OUT/ncu.err" || { tail -3 "$OUT/ncu.csv" "$OUT/ncu.err"; return 1; }
  python3 - "$OUT/ncu.csv" <<'PY'
import collections, csv, sys
lines = [line for line in open(sys.argv[1]) if line.startswith('"')]
kernels = collections.defaultdict(lambda: collections.defaultdict(list))
for row in csv.DictReader(lines):
    kernels[row["Kernel Name"].split("<")[0].split("(")[0][-40:]][row["Metric Name"].split("__")[1].split(".")[0]].append(float(row["Metric Value"].replace(",", "")))
print(f"{'kernel':40} calls    total    compute %  memory %")
total = lambda figures: sum(figures["time_duration"])
mean = lambda values: sum(values) / max(1, len(values))
for name, f in sorted(kernels.items(), key=lambda pair: -total(pair[1]))[:24]:
    print(f"{name:40} {len(f['time_duration']):5} {total(f):10.0f} {mean(f['throughput']):10.1f} {mean(f['compute_memory_throughput']):9.1f}")
PY
}

if [ "${1:-}" = --one ]; then
  "stage_$2"
  exit
fi
build=
[ "${1:-}" = --build ] && build=1 && shift
[ $# -gt 0 ] || { echo "usage: dev/gpu_check.sh [--build] STAGE...   ($STAGES, or all)" >&2; exit 2; }
[ "$*" = all ] && set -- $STAGES
for stage; do
  case " $STAGES " in *" $stage "*) ;; *) echo "Cannot check \"$stage\", expected one of $STAGES" >&2; exit 2 ;; esac
done
[ -e "$pack/app.tar.xz" ] || { echo "Cannot check: $pack/app.tar.xz is missing; run \"deno task gpu:pack\" where deno is" >&2; exit 1; }
mkdir -p "$OUT"
unpack || exit 1
if [ $backend = cuda_emu ]; then
  cp "$root/kernels_cu/build/libnanochat_cuda_emu.so" "$root/kernels_cu/build/probe_nanochat_cuda_emu" "$app/" || exit 1
else
  NANOCHAT_CUBLASLT=${NANOCHAT_CUBLASLT:-$(python3 "$root/dev/gpu/env.py" cublaslt)}
  [ -n "$NANOCHAT_CUBLASLT" ] && export NANOCHAT_CUBLASLT
fi
if [ -n "$build" ]; then
  timeout -k 10 $STAGE_SECONDS bash -c "$(declare -f build); root='$root'; app='$app'; build" >"$OUT/build.txt" 2>&1 ||
    { tail -$LINES_SHOWN "$OUT/build.txt"; echo "build FAILED"; exit 1; }
fi
summary=
for stage; do
  echo "# $stage"
  from=$SECONDS
  timeout -k 10 $STAGE_SECONDS bash "${BASH_SOURCE[0]}" --one "$stage" >"$OUT/$stage.txt" 2>&1
  case $? in 0) end=ok ;; 124 | 137) end="FAILED: out of time" ;; *) end=FAILED ;; esac
  tail -$((LINES_SHOWN - 1)) "$OUT/$stage.txt"
  echo "$stage $end, $((SECONDS - from)) s"
  summary+="$stage $end; "
done
echo "# ${summary%; }"
case $summary in *FAILED*) exit 1 ;; esac
