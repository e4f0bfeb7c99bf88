#!/usr/bin/env bash
# All that needs a GPU, in nine minutes: comparisons of six jobs, workspaces of convolutions, the
# corpus, and the gpu tests in what is left.
#
#     bench/corpus/device.sh OUT [SECONDS] [DEVICE] [PARTS]
#
# memplan need not be installed: only Python with torch, protobuf, click, pyyaml, pytest,
# pytest-timeout, nvidia-ml-py and the model libraries; tests through a server need its packages too.
# Packages of another folder may be named in PYTHONPATH. Writes OUT/tests.txt, OUT/compare.jsonl (one
# comparison a line), OUT/convolutions.jsonl (workspaces of six jobs: docs/convolutions.md),
# OUT/corpus/GPU.jsonl, OUT/log.txt and OUT/used.csv (memory in use over time). Each part goes on when
# another fails; what is measured in this folder already is not measured again. DEVICE cpu is a dry
# run of a small job. PARTS are those to do, all by default: "corpus tests" goes on with a corpus that
# a first run did not get through.
set -uo pipefail
limit=${2:-530}
device=${3:-cuda}
for_tests=$((limit / 4))
python=${PYTHON:-python3}
mkdir -p "${1:?where to write to}/corpus"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/../.." || exit
export PYTHONPATH="$PWD/client:$PWD/server${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1 # what was said before the time was up is of use
log="$out/log.txt"
parts=$(mktemp -d)
nvidia-smi >"$log" 2>&1
# The driver may unload its state while no program uses the GPU, and take seconds to load it again.
nvidia-smi --query-gpu=timestamp,memory.used --format=csv --loop=5 >"$out/used.csv" 2>/dev/null &
watching=$!
disown # `wait` is for the comparisons
trap 'kill "$watching" 2>/dev/null; rm -rf "$parts"' EXIT

compare() { # the job's options
	timeout 120 "$python" -m memplan_server compare "$@" --device "$device" --json \
		>"$(mktemp "$parts/XXXXXX")" 2>>"$log" || echo "failed: compare $*" | tee -a "$log"
}
collect() { # what has been compared so far
	wait
	cat "$parts"/* >>"$out/compare.jsonl"
	rm -f "$parts"/*
}
do_compare() {
	if [ "$device" = cpu ]; then
		compare transformers/bert --input 8:int64 --batch-size 2 --model-config num_hidden_layers=1 \
			--model-config hidden_size=24 --model-config vocab_size=50
		collect
		return
	fi
	text="--input 512:int64 --optimizer adamw --batch-size"
	compare transformers/bert $text 16 &
	compare transformers/gpt2 $text 8 --precision amp-fp16 &
	compare transformers/t5 $text 8 & # in half precision cuDNN's attention refuses its learned bias
	collect
	compare torchvision/resnet50 --batch-size 32 --momentum 0.9 &
	compare torchvision/resnet50 --batch-size 32 --precision amp-fp16 \
		--memory-format channels-last &
	compare torchvision/swin_t --batch-size 16 --precision amp-bf16 --optimizer adamw &
	collect
}

convolve() { # the job's options
	into=$(mktemp "$parts/XXXXXX")
	timeout 75 "$python" bench/cudnn_workspaces.py "$@" --batch-sizes 8,64 --measure --rows 5 \
		--json "$into.jsonl" >"$into.txt" 2>>"$log" || echo "failed: convolve $*" | tee -a "$log"
}
do_convolve() {
	[ "$device" = cpu ] && return
	convolve torchvision/resnet50 &
	convolve torchvision/resnet50 --precision amp-bf16 &
	convolve torchvision/resnet50 --memory-format channels-last &
	convolve timm/convnext_base --precision amp-bf16 &
	convolve timm/regnety_032 &
	convolve torchvision/efficientnet_b0 --precision amp-fp16 --memory-format channels-last &
	wait
	cat "$parts"/*.txt >>"$log"
	cat "$parts"/*.jsonl >>"$out/convolutions.jsonl"
	rm -f "$parts"/*
}

do_corpus() {
	"$python" bench/corpus/measure.py --out "$out/corpus" --done bench/corpus --device "$device" \
		--only "$([ "$device" = cpu ] && echo '^mlp-fp32')" \
		--time-limit $((limit - SECONDS - for_tests)) 2>&1 | tee -a "$log"
}

do_tests() {
	chosen=(tests/gpu)
	if ! "$python" -c 'import memplan_server.app' 2>>"$log"; then
		echo "a package of the server is missing: the tests through one are left out" | tee -a "$log"
		chosen=(tests/gpu/test_measured.py --confcutdir=tests/gpu)
	fi
	# Warnings are errors elsewhere; what a driver warns of must not end the tests here.
	left=$((limit > SECONDS + 10 ? limit - SECONDS : 10))
	timeout --signal=INT --kill-after=20 "$left" "$python" -m pytest "${chosen[@]}" \
		-p no:cacheprovider -W default -vv -rA --durations=0 >"$out/tests.txt" 2>&1
	tail -n 1 "$out/tests.txt" | tee -a "$log"
}

for part in ${4:-compare convolve corpus tests}; do
	echo "$part, at $SECONDS s" | tee -a "$log"
	"do_$part"
done
