#!/usr/bin/env bash
# The shared driver: the stages that take a corpus from download to report. A recipe's run.sh calls it in its own directory.
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
threads=                # CPU threads of a command; default: the cores that no other program keeps busy
num_nodes=1             # machines that train together: run stage 4 on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK set
config=conf/train.yaml  # all numbers
config_opts=            # other values for some of them: "--set train.epochs=10 --set seed=2"
exp_tag=                # name of the experiment below expdir; default: that of the config file
download_dir=downloads  # where the corpus is, or is put; later runs remember it
datadir=data            # data directories
expdir=exp              # experiments
train_set=train         # name of the training set below datadir
dev_set=dev             # the same of the development set, which chooses epochs and layers
test_sets="test"        # the same of the test sets: "test_clean test_other"
lm_text=                # sentences, one a line, that decode.decoder.lm is trained on; default: those of train_set
local_opts=             # passed on to local/download.sh and local/data.sh; later runs remember it
is_dev=false            # true: dev_set is a dev set, although its name contains "test"
allow_pipes=false       # true: run the `command |` entries of wav.scp, which are arbitrary shell
licence=                # of the corpus, in words: goes into the cards of exported models
results_dir=            # where to copy RESULTS.md and figures/ at the end
# end

common=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$common/parse_options.sh"
source "$common/environment.sh"
one_of executor local slurm; for flag in is_dev allow_pipes; do one_of "$flag" true false; done
numbers=(--config "$config" $config_opts) exp=$expdir/$exp_tag
from_config lm=decode.decoder.lm speeds=prune.speeds
check_language_model
remember download_dir local_opts
train=$datadir/$train_set train_sp=${train}_sp dev=$datadir/$dev_set tests=() list=()
for name in $test_sets; do tests+=("$datadir/$name"); done
search_dir=$dev copied=  # layers are chosen on it, or on copies of it at these speeds
if [ "$speeds" != "[1.0]" ]; then search_dir=${dev}_sp copied=true; fi
jobs=(--executor "$executor" ${sbatch:+--sbatch "$sbatch"}) cores=(--ngpu "$ngpu" ${threads:+--threads "$threads"})
decoders=$nj own_gpus=$ngpu
if [ "$executor" = slurm ]; then own_gpus=0; elif [ "$ngpu" != 0 ]; then decoders=1; fi  # a GPU here is busy with one process
pipes=$(if_true "$allow_pipes" --allow-pipes) sure=$(if_true "$is_dev" --yes-it-is-a-dev-set)

# The stages, each with its commands; the last line runs what is not done, by what asrprune/recipe/dependencies.py says of each.
stage() { list+=("$#" stage "$@"); }  # stage NUMBER NAME PURPOSE [VALUE]: a change of VALUE counts, too
run() { list+=("$#" run "$@"); }      # run COMMAND: a command of the stage above

stage 0 download "the corpus, if one is to be fetched, in $download_dir" "$download_dir $local_opts"
    if [ -f local/download.sh ]; then run bash local/download.sh "$download_dir" "$datadir" $local_opts; fi
stage 1 data "data directories of $train_set, $dev_set, $test_sets, in $datadir" "$download_dir $local_opts"
    run bash local/data.sh "$download_dir" "$datadir" "$nj" $local_opts
    run asrprune check-data "$train" "$dev" "${tests[@]}" --no-features $pipes
stage 2 fbank "speed perturbation, features and CMVN, in $train_sp, $dev and the test sets"
    run asrprune perturb "$train" "$train_sp" "${numbers[@]}"
    if [ "$copied" ]; then run asrprune perturb "$dev" "$search_dir" "${numbers[@]}" --search; fi
    run asrprune fbank "$train_sp" "$dev" "${tests[@]}" ${copied:+"$search_dir"} "${numbers[@]}" "${jobs[@]}" --nj "$nj" \
        --cmvn "$train_sp/cmvn" $pipes
stage 3 bpe "text units${lm:+ and language model}, in $exp/lang"
    run asrprune bpe "$train" "$exp/lang" "${numbers[@]}"
    if [[ -z $lm || -f $lm ]]; then :  # there is none to make
    elif [[ $lm = */* ]]; then die "decode.decoder.lm $lm: no such file; one that is made has a name without /"
    elif [[ -f local/lm.sh && $lm != ?gram.arpa* ]]; then run bash local/lm.sh "$download_dir" "$datadir" "$exp/lang/$lm"
    else run asrprune lm "${lm_text:-$train/text}" ${lm_text:+--plain} "$exp/lang/$lm"; fi
stage 4 train "training with $config, in $exp; curves: tensorboard --logdir $exp"
    run asrprune train "${numbers[@]}" --exp "$exp" --train "$train_sp" --dev "$dev" --bpe "$exp/lang/bpe.model" \
        --cmvn "$train_sp/cmvn" "${cores[@]}" --nproc "$nproc" --num-nodes "$num_nodes" $sure
stage 5 average "the average of the best epochs, in $exp/model.safetensors" ${licence:+"$licence"}
    run asrprune average --exp "$exp" ${licence:+--licence "$licence"}
stage 6 svcca "similarity of the layers on $search_dir, in $exp/svcca, if a strategy needs it"
    run asrprune svcca --exp "$exp" --data "$search_dir" "${cores[@]}"
stage 7 search "which layers to remove, judged on $search_dir, in $exp/plans"
    if [ "$lm" ]; then run asrprune tune-lm --exp "$exp" --dev "$dev" $sure "${jobs[@]}" --nj "$decoders" "${cores[@]}"; fi
    run asrprune search --exp "$exp" --dev "$search_dir" $sure "${jobs[@]}" --nj "$decoders" "${cores[@]}"
stage 8 decode "$test_sets at every depth, in $exp/decode"
    run asrprune decode --exp "$exp" "${tests[@]}" "${jobs[@]}" --nj "$decoders" "${cores[@]}"
stage 9 score "word error rates, in $exp/decode"
    run asrprune score --exp "$exp" "${tests[@]}"
stage 10 bench "real-time factors, in $exp/bench.json" "$ngpu"
    run asrprune bench --exp "$exp" --data "${tests[0]}" --ngpu "$ngpu" $pipes
stage 11 report "tables and figures, in $exp/report.html" "$results_dir"
    run asrprune report --exp "$exp" ${results_dir:+--copy-to "$results_dir"}
exec asrprune stage "${numbers[@]}" --exp "$exp" --datadir "$datadir" --train-set "$train_set" --dev-set "$dev_set" \
    --test-sets "$test_sets" --lm-text "$lm_text" --ngpu "$own_gpus" --first "$stage" --last "$stop_stage" -- "${list[@]}"
