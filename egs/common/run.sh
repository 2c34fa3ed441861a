#!/usr/bin/env bash
# The shared driver: takes a corpus from download to report, stage by stage. A recipe's run.sh calls it in its own directory.
# Kill it whenever you like and run it again: what is done is skipped, what was under way goes on.
# shellcheck disable=SC2086,SC2206  # options that hold several words are split on purpose
set -euo pipefail

# options
stage=0                 # first stage to run
stop_stage=11           # last stage to run
nj=2                    # processes for data, features, search and decoding
executor=local          # slurm: features, search and decoding are done by nj jobs of a cluster instead
sbatch=                 # options for these jobs, as sbatch has them: "--partition=gpu --gres=gpu:1 --time=60"
ngpu=0                  # GPUs of this machine that train together (other stages use one); 0: the CPU
nproc=1                 # without GPUs: processes that train together
num_nodes=1             # machines that train together: run stage 4 on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK set
config=conf/train.yaml  # all numbers
config_opts=            # other values for some of them: "--set train.epochs=10 --set seed=2"
exp_tag=                # name of the experiment below expdir; default: that of the config file
download_dir=downloads  # where the corpus is, or is put
datadir=data            # data directories
expdir=exp              # experiments
train_set=train         # name of the training set below datadir
dev_set=dev             # the same of the development set, which chooses epochs and layers
test_sets="test"        # the same of the test sets: "test_clean test_other"
local_opts=             # passed on to local/download.sh and local/data.sh
allow_pipes=false       # true: run the `command |` entries of wav.scp, which are arbitrary shell
results_dir=            # where to copy RESULTS.md and figures/ at the end
# end

common=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$common/parse_options.sh"

die() {
    echo "$recipe: $1" >&2
    exit "${2:-1}"
}
trap 'die "interrupted; run the same command again: it goes on from here" 130' INT TERM
export LC_ALL=C PYTHONUTF8=1 PYTHONUNBUFFERED=1  # files are sorted bytewise
command -v asrprune > /dev/null || PATH=$common/../../.venv/bin:$PATH
command -v asrprune > /dev/null || die "asrprune is not installed; run 'make demo' or 'pip install -e .' in the project's root"

numbers=(--config "$config" $config_opts)
config_lines=$(python "$common/config_lines.py" "${numbers[@]}") || die "nothing was run (paths are relative to $PWD)"
exp=$expdir/${exp_tag:-$(basename "$config" .yaml)}
train_sp=$datadir/${train_set}_sp
search_dir=$datadir/$dev_set  # what layers are chosen on
if [[ $config_lines != *"prune.speeds=[1.0]"* ]]; then search_dir+=_sp; fi
tests=() decodes=()
one_of executor local slurm
jobs=(--executor "$executor")
if [ -n "$sbatch" ]; then jobs+=(--sbatch "$sbatch"); fi
decoders=$nj
if [ "$executor" = local ] && [ "$ngpu" != 0 ]; then decoders=1; fi  # a GPU is busy with one
pipes=
if [ "$allow_pipes" = true ]; then pipes=--allow-pipes; fi
for name in $test_sets; do tests+=("$datadir/$name") decodes+=("$exp/decode/$name"); done
mkdir -p "$datadir/log" "$datadir/.done" "$exp/log" "$exp/.done" || die "choose another --datadir or --expdir"

checked=no     # whether what the stages need was looked for
key=           # checksum of what the stages so far depend on
features_key=  # the same of the features below datadir, which experiments share

# run_stage NUMBER NAME WHERE NEEDS WHAT OUTPUT...: run the function stage_NUMBER unless it is done, that is, WHERE/.done/NUMBER
# holds the checksum of NEEDS, its own and those of the stages before (and of $also, its own alone), and every OUTPUT exists.
# (Stage 4 also depends on numbers that are not the training's: it writes config.yaml, where later stages find theirs.)
run_stage() {
    local number=$1 name=$2 where=$3 what=$5 mark=$3/.done/$1 started=$SECONDS status=0 now
    log=$where/log/$name.log
    key=$(printf '%s\n' "$key" "$4" | cksum)
    now="$key, $(cksum <<< "${also:-}")"
    shift 5
    if [ "$number" = 2 ]; then
        features_key=$key
        if [ "$search_dir" != "$datadir/$dev_set" ]; then features_key+=", $copies"; fi
        now="$key, $copies, $(cksum <<< "$also")"
    fi
    if [ "$number" -lt "$stage" ] || [ "$number" -gt "$stop_stage" ]; then return; fi
    if [ "$(cat "$mark" 2> /dev/null)" = "$now" ] && all_there "$@"; then
        echo "stage $number ($name): done before; to run it again: rm '$mark'"
        return
    fi
    if [ $checked = no ]; then check_installation; fi
    if [ "$number" -gt 2 ]; then check_features; fi
    for ((n = number; n <= 11; n++)); do  # a killed stage must not look done; and what is made anew may differ
        if [ "$n" = "$number" ] || [ "$number" -gt 4 ]; then rm -f "$where/.done/$n"; fi
    done
    echo "stage $number ($name): $what; log: $log"
    "stage_$number" || status=$?
    if [ $status = 70 ]; then tail -n 20 "$log"; fi  # a mistake of asrprune's own: its traceback is in the log alone
    [ $status = 0 ] || die "stage $number ($name) failed ($status); log: $log; mend the cause and run the same command again"
    echo "$now" > "$mark.tmp" && mv "$mark.tmp" "$mark"
    echo "stage $number ($name): took $((SECONDS - started)) s"
}

check_installation() {  # what later stages lack is found now, not after hours
    local mark=$exp/.done/doctor gpus=$ngpu now
    if [ "$executor" = slurm ]; then gpus=0; fi  # those that the jobs get cannot be seen from here
    now="$(command -v asrprune), $gpus GPUs"
    checked=yes
    if [ "$(cat "$mark" 2> /dev/null)" = "$now" ]; then return; fi
    env asrprune --log "$exp/log/doctor.log" doctor --ngpu "$gpus" > "$exp/log/doctor.out" || {
        cat "$exp/log/doctor.out"
        die "mend what is missing and run the same command again"
    }
    echo "$now" > "$mark"
}
check_features() {  # another experiment may have computed its own
    if [[ $(cat "$datadir/.done/2" 2> /dev/null || echo "$features_key,") != "$features_key,"* ]]; then
        die "the features in $datadir are those of another config or other data; run stage 2, or take another --datadir"
    fi
}
all_there() { for path in "$@"; do [ -e "$path" ] || return 1; done; }
config_of() { grep -E "^($1)" <<< "$config_lines"; }
tables_of() {  # checksums of data directories as they are now
    for name in "$@"; do for file in wav.scp segments text utt2spk; do cksum < "$datadir/$name/$file"; done; done 2> /dev/null
}
asrprune() { env asrprune --log "$log" "$@"; }  # not `command`: the bash of macOS would exit if it fails
recorded() { "$@" 2>&1 | tee -a "$log"; }

stage_0() { if [ -f local/download.sh ]; then recorded bash local/download.sh "$download_dir" "$datadir" $local_opts; fi; }
stage_1() {
    local failed=0
    recorded bash local/data.sh "$download_dir" "$datadir" "$nj" $local_opts || failed=$?
    if [ $failed != 0 ]; then  # what it lacks may be stage 0's to bring
        rm -f "$datadir/.done/0"
        return $failed
    fi
    asrprune check-data "$datadir/$train_set" "$datadir/$dev_set" "${tests[@]}" $pipes
}
stage_2() {
    local dirs=("$train_sp" "$datadir/$dev_set" "${tests[@]}")
    asrprune perturb "$datadir/$train_set" "$train_sp" "${numbers[@]}" || return
    if [ "$search_dir" != "$datadir/$dev_set" ]; then
        asrprune perturb "$datadir/$dev_set" "$search_dir" "${numbers[@]}" --search || return
        dirs+=("$search_dir")
    fi
    asrprune fbank "${dirs[@]}" "${numbers[@]}" "${jobs[@]}" --nj "$nj" --cmvn "$train_sp/cmvn" $pipes
}
stage_3() { asrprune bpe "$datadir/$train_set" "$exp/lang" "${numbers[@]}"; }
stage_4() {
    asrprune train "${numbers[@]}" --exp "$exp" --train "$train_sp" --dev "$datadir/$dev_set" \
        --bpe "$exp/lang/bpe.model" --cmvn "$train_sp/cmvn" --ngpu "$ngpu" --nproc "$nproc" --num-nodes "$num_nodes"
}
stage_5() { asrprune average --exp "$exp"; }
stage_6() { asrprune svcca --exp "$exp" --data "$search_dir" --ngpu "$ngpu"; }
stage_7() { asrprune search --exp "$exp" --dev "$search_dir" "${jobs[@]}" --nj "$decoders" --ngpu "$ngpu"; }
stage_8() { asrprune decode --exp "$exp" "${tests[@]}" "${jobs[@]}" --nj "$decoders" --ngpu "$ngpu"; }
stage_9() { asrprune score --exp "$exp" "${tests[@]}"; }
stage_10() { asrprune bench --exp "$exp" --data "${tests[0]}" --ngpu "$ngpu" $pipes; }
stage_11() { asrprune report --exp "$exp" ${results_dir:+--copy-to "$results_dir"}; }

run_stage 0 download "$datadir" "$download_dir $local_opts" "the corpus, if one is to be fetched, in $download_dir"
run_stage 1 data "$datadir" "$(cat local/*.* conf/corpus* 2> /dev/null) $local_opts" \
    "data directories of $train_set, $dev_set, $test_sets, in $datadir" \
    "$datadir/$train_set/text" "$datadir/$dev_set/text" "${tests[@]/%//text}"
key=  # what counts from here on is what the data directories hold, not how it came there
copies=$(config_of prune.speeds | cksum)  # of the dev set
also=$(tables_of $test_sets) \
    run_stage 2 fbank "$datadir" "$(tables_of "$train_set" "$dev_set") $(config_of 'frontend|augment.speeds')" \
    "speed perturbation, features and CMVN, in $train_sp, $datadir/$dev_set and the test sets" \
    "$train_sp/feats.scp" "$train_sp/cmvn" "$datadir/$dev_set/feats.scp" "$search_dir/feats.scp" "${tests[@]/%//feats.scp}"
run_stage 3 bpe "$exp" "$(config_of tokenizer)" "text units, in $exp/lang" "$exp/lang/bpe.model"
also=$config_lines \
    run_stage 4 train "$exp" "$(config_of 'seed|augment|batch|model|train')" \
    "training with $config, in $exp; curves: tensorboard --logdir $exp" "$exp/config.yaml" "$exp/train.jsonl"
run_stage 5 average "$exp" "" "the average of the best epochs, in $exp/model.safetensors" "$exp/model.safetensors"
run_stage 6 svcca "$exp" "$(config_of 'prune.svcca|prune.speeds|decode') and influence" "similarity of the layers on $search_dir, in $exp/svcca" "$exp/svcca"
run_stage 7 search "$exp" "$(config_of prune)" "which layers to remove, judged on $search_dir, in $exp/plans" "$exp/plans"
run_stage 8 decode "$exp" "$(tables_of $test_sets)" "$test_sets at every depth, in $exp/decode" "${decodes[@]}"
run_stage 9 score "$exp" "" "word error rates, in $exp/decode"
run_stage 10 bench "$exp" "$ngpu $(config_of bench)" "real-time factors, in $exp/bench.json" "$exp/bench.json"
run_stage 11 report "$exp" "$results_dir" "tables and figures, in $exp/report.html" "$exp/report.html" "$exp/results.json"
