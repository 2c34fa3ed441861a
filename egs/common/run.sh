#!/usr/bin/env bash
# The shared driver: takes a corpus from download to result tables, stage by stage. A recipe's run.sh calls it in its own directory.
set -euo pipefail

# options
stage=0                    # first stage to run
stop_stage=11              # last one
nj=2                       # processes for data and features
ngpu=0                     # GPUs; 0: the CPU
config=conf/train.yaml     # all numbers
config_opts=""             # override some: "--set train.epochs=10 --set seed=2"
exp_tag=""                 # name of the experiment below expdir; default: the name of the config file
download_dir=downloads     # where the corpus is, or is put
datadir=data               # data directories
expdir=exp                 # experiments
train_set=train            # names below datadir
dev_set=dev
test_sets=test             # one or several, "test_clean test_other"
local_opts=""              # passed on to local/data.sh
results_dir=""             # copy RESULTS.md and figures/ here at the end
# end

recipe=$(basename "$PWD")/run.sh
common=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$common/parse_options.sh"

[ -d "$common/../../.venv/bin" ] && [ -z "${VIRTUAL_ENV:-}" ] && PATH="$(cd "$common/../../.venv/bin" && pwd):$PATH"
export LC_ALL=C.UTF-8 PYTHONUNBUFFERED=1
exp=$expdir/${exp_tag:-$(basename "$config" .yaml)}
train_sp=$datadir/${train_set}_sp
numbers="--config $config $config_opts"
key=""                     # checksum of everything that the stages so far depend on

die() {
    echo "$recipe: $1" >&2
    exit 1
}

# run_stage NUMBER NAME WHERE WHAT: run the function stage_NUMBER unless it is done, with its log in WHERE/log/NAME.log.
run_stage() {
    local number=$1 name=$2 where=$3 what=$4
    local done_file=$where/.done/$number
    log=$where/log/$name.log
    key=$( { echo "$key"; declare -f "stage_$number"; [ "$number" -lt 2 ] || cat "$config"; echo "$config_opts $local_opts"; } | sha256sum | cut -c1-16)
    if [ "$number" -lt "$stage" ] || [ "$number" -gt "$stop_stage" ]; then return; fi
    if [ "$(cat "$done_file" 2>/dev/null)" = "$key" ]; then
        echo "stage $number ($name): done before; remove $done_file to run it again"
        return
    fi
    mkdir -p "$where/log" "$where/.done" || die "cannot write to $where; choose another --datadir or --expdir"
    echo "stage $number ($name): $what; log: $log"
    local started=$SECONDS
    "stage_$number" || die "stage $number ($name) failed; log: $log; mend the cause and run the same command again: it goes on from here"
    echo "$key" > "$done_file.$$" && mv "$done_file.$$" "$done_file"
    echo "stage $number ($name): took $((SECONDS - started)) s"
}

asrprune() { command asrprune --log "$log" "$@"; }
local_script() { "$@" 2>&1 | tee -a "$log"; }

stage_0() {
    command asrprune doctor > "$log" || { cat "$log"; return 1; }
    if [ -f local/download.sh ]; then local_script bash local/download.sh "$download_dir"; fi
}
stage_1() {
    local_script bash local/data.sh "$download_dir" "$datadir" "$nj" $local_opts &&
        asrprune check-data "$datadir/$train_set" "$datadir/$dev_set" $(sets)
}
stage_2() {
    asrprune perturb "$datadir/$train_set" "$train_sp" $numbers &&
        asrprune fbank "$train_sp" "$datadir/$dev_set" $(sets) $numbers --nj "$nj" --cmvn "$exp/cmvn.train"
}
stage_3() { asrprune bpe "$datadir/$train_set" "$exp/lang" $numbers; }
stage_4() {
    asrprune train $numbers --exp "$exp" --train "$train_sp" --dev "$datadir/$dev_set" \
        --bpe "$exp/lang/bpe.model" --cmvn "$exp/cmvn.train" --ngpu "$ngpu"
}
stage_5() { asrprune average --exp "$exp"; }
stage_6() { asrprune svcca --exp "$exp" --data "$datadir/$dev_set" --ngpu "$ngpu"; }
stage_7() { asrprune search --exp "$exp" --dev "$datadir/$dev_set" --ngpu "$ngpu"; }
stage_8() { asrprune decode --exp "$exp" $(sets) --ngpu "$ngpu"; }
stage_9() { asrprune score --exp "$exp" $(sets); }
stage_10() { asrprune bench --exp "$exp" --data "$(sets | head -n 1)" --ngpu "$ngpu"; }
stage_11() { asrprune report --exp "$exp" ${results_dir:+--copy-to "$results_dir"}; }
sets() { for name in $test_sets; do echo "$datadir/$name"; done; }

[ -f "$config" ] || die "no such config: $config"
command -v asrprune > /dev/null || die "asrprune is not installed; run 'make demo' once, or 'pip install -e .' in the project's root"
trap 'die "interrupted; run the same command again: it goes on from here"' INT TERM

run_stage 0 download "$datadir" "checking the installation, fetching the corpus into $download_dir"
run_stage 1 data "$datadir" "data directories in $datadir: $train_set $dev_set $test_sets"
run_stage 2 fbank "$exp" "features of $train_sp, $datadir/$dev_set, test sets; CMVN"
run_stage 3 bpe "$exp" "text units in $exp/lang"
run_stage 4 train "$exp" "training $config into $exp"
run_stage 5 average "$exp" "averaging the best epochs into $exp/model.safetensors"
run_stage 6 svcca "$exp" "similarity of the layers on $dev_set, in $exp/svcca"
run_stage 7 search "$exp" "which layers to remove, judged on $dev_set, in $exp/plans"
run_stage 8 decode "$exp" "decoding $test_sets at every depth, in $exp/decode"
run_stage 9 score "$exp" "word error rates, in $exp/decode"
run_stage 10 bench "$exp" "real-time factors, in $exp/bench.json"
run_stage 11 report "$exp" "tables and figures, in $exp/report.html"
