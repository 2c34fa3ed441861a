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
results_dir=            # where to copy RESULTS.md and figures/ at the end
# end

common=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$common/parse_options.sh"
source "$common/environment.sh"
one_of executor local slurm
numbers=(--config "$config" $config_opts)
known=$(asrprune number decode.decoder.lm prune.speeds prune.strategies "${numbers[@]}") \
    || die "nothing was run (paths are relative to $PWD)"
{ read -r lm; read -r speeds; read -r strategies; } <<< "$known"
remember download_dir
remember local_opts
exp=$expdir/${exp_tag:-$(basename "$config" .yaml)}
train=$datadir/$train_set train_sp=${train}_sp dev=$datadir/$dev_set tests=() decoded=() stages=()
for name in $test_sets; do tests+=("$datadir/$name") decoded+=("$exp/decode/$name/*"); done
search_dir=$dev copied= decoders=$nj own_gpus=$ngpu  # layers are chosen on it
if [ "$speeds" != "[1.0]" ]; then copied=prune.speeds search_dir=${dev}_sp; fi  # or on copies of it at these speeds
sets=("$train" "$dev" "${tests[@]}") features=("$train_sp" "$dev" "${tests[@]}" ${copied:+"$search_dir"})
jobs=(--executor "$executor" ${sbatch:+--sbatch "$sbatch"}) cores=(--ngpu "$ngpu" ${threads:+--threads "$threads"})
if [ "$executor" = slurm ]; then own_gpus=0; elif [ "$ngpu" != 0 ]; then decoders=1; fi  # a GPU here is busy with one process
if [ "$allow_pipes" = true ]; then pipes=--allow-pipes; else pipes=; fi
if [ "$is_dev" = true ]; then sure=--yes-it-is-a-dev-set; else sure=; fi
if [ -f local/download.sh ]; then download=local/download.sh; else download=/dev/null; fi
lm_file=$exp/lang/$lm  # decode.decoder.lm
made_lm=$lm_file make_lm=(asrprune lm "${lm_text:-$train/text}" ${lm_text:+--plain})  # trained,
if [[ -f local/lm.sh && $lm != ?gram.arpa* ]]; then make_lm=(bash local/lm.sh "$download_dir" "$datadir"); fi  # fetched,
if [ -f "$lm" ]; then lm_file=$lm made_lm= make_lm=(test -f); fi  # or there

stage() { stages+=("$#" "$@"); }  # NUMBER NAME PURPOSE OPTION... -- COMMAND [--then COMMAND...]: see asrprune/recipe/stage.py

stage 0 download "the corpus, if one is to be fetched, in $download_dir" --in "$datadir" --given "$download_dir $local_opts" \
    -- bash $download "$download_dir" "$datadir" $local_opts
stage 1 data "data directories of $train_set, $dev_set, $test_sets, in $datadir" --in "$datadir" --on-failure-redo 0 \
    --given "$download_dir $local_opts" --reads local/*.* conf/corpus* --editable \
    --makes "${sets[@]/%//text}" "${sets[@]/%//wav.scp}" "${sets[@]/%//utt2spk}" \
    -- bash local/data.sh "$download_dir" "$datadir" "$nj" $local_opts \
    --then asrprune check-data "$train" "$dev" "${tests[@]}" --no-features $pipes
stage 2 fbank "speed perturbation, features and CMVN, in $train_sp, $dev and the test sets" --in "$datadir" --shared features \
    --repeatable --needs frontend augment.speeds --reads "$train" "$dev" --also-needs $copied --also-reads "${tests[@]}" \
    --also-reads-audio "${sets[@]}" --makes "$train_sp/cmvn" "${features[@]/%//feats.scp}" "${features[@]/%//utt2[cdn]*}" \
    "${features[@]/%//fbank/feats_*}" \
    -- asrprune perturb "$train" "$train_sp" "${numbers[@]}" \
    ${copied:+--then asrprune perturb "$dev" "$search_dir" "${numbers[@]}" --search} \
    --then asrprune fbank "$train_sp" "$dev" "${tests[@]}" ${copied:+"$search_dir"} "${numbers[@]}" "${jobs[@]}" --nj "$nj" \
    --cmvn "$train_sp/cmvn" $pipes
stage 3 bpe "text units${lm:+ and language model}, in $exp/lang" --in "$exp" --after 2 --repeatable --needs tokenizer \
    ${lm:+--also-needs decode.decoder.lm} ${lm_text:+--also-reads "$lm_text"} \
    --makes "$exp/lang/bpe.model" "$exp/lang/tokens.txt" ${lm:+${made_lm:+"$made_lm"}} \
    -- asrprune bpe "$train" "$exp/lang" "${numbers[@]}" ${lm:+--then "${make_lm[@]}" "$lm_file"}
stage 4 train "training with $config, in $exp; curves: tensorboard --logdir $exp" --in "$exp" --after 3 --repeatable \
    --needs seed augment batch model train --reads "$train_sp/utt2crc" "$dev/utt2crc" --also-needs all \
    --makes "$exp/"{config.yaml,bpe.model,tokens.txt,cmvn,dropped.tsv} \
    -- asrprune train "${numbers[@]}" --exp "$exp" --train "$train_sp" --dev "$dev" --bpe "$exp/lang/bpe.model" \
    --cmvn "$train_sp/cmvn" "${cores[@]}" --nproc "$nproc" --num-nodes "$num_nodes" $sure
stage 5 average "the average of the best epochs, in $exp/model.safetensors" --in "$exp" --after 4 --on-failure-redo 4 \
    --makes "$exp/model.safetensors" "$exp/model.json" -- asrprune average --exp "$exp"
measured=5
if [[ $strategies =~ svcca|influence ]]; then  # a small dev set may be too short to measure, which the others do not need
    measured=6
    stage 6 svcca "similarity of the layers on $search_dir, in $exp/svcca" --in "$exp" --after 5 \
        --needs decode prune.svcca_variance prune.svcca_frames prune.speeds --reads "$search_dir/utt2crc" \
        --makes "$exp/svcca/${search_dir##*/}".{npz,png} -- asrprune svcca --exp "$exp" --data "$search_dir" "${cores[@]}"
fi
stage 7 search "which layers to remove, judged on $search_dir, in $exp/plans" --in "$exp" --after "$measured" \
    --needs prune --reads "$search_dir/utt2crc" ${lm:+"$lm_file"} --makes "$exp/plans/*.json" ${lm:+"$exp/decoder.json"} \
    -- ${lm:+asrprune tune-lm --exp "$exp" --dev "$dev" $sure "${jobs[@]}" --nj "$decoders" "${cores[@]}" --then} \
    asrprune search --exp "$exp" --dev "$search_dir" $sure "${jobs[@]}" --nj "$decoders" "${cores[@]}"
stage 8 decode "$test_sets at every depth, in $exp/decode" --in "$exp" --after 7 \
    --reads "${tests[@]}" "${tests[@]/%//utt2crc}" --makes "${decoded[@]/%//text}" "${decoded[@]/%//decode.json}" \
    -- asrprune decode --exp "$exp" "${tests[@]}" "${jobs[@]}" --nj "$decoders" "${cores[@]}"
stage 9 score "word error rates, in $exp/decode" --in "$exp" --after 8 --needs scoring \
    --makes "${decoded[@]/%//score.json}" "${decoded[@]/%//*.t*}" \
    -- asrprune score --exp "$exp" "${tests[@]}"
stage 10 bench "real-time factors, in $exp/bench.json" --in "$exp" --after 9 --needs bench --given "$ngpu" \
    --makes "$exp/bench.json" -- asrprune bench --exp "$exp" --data "${tests[0]}" --ngpu "$ngpu" $pipes
stage 11 report "tables and figures, in $exp/report.html" --in "$exp" --after 10 --needs scoring --given "$results_dir" \
    --makes "$exp/report.html" "$exp/results.json" "$exp/RESULTS.md" "$exp/figures/*.png" \
    -- asrprune report --exp "$exp" ${results_dir:+--copy-to "$results_dir"}

exec asrprune stage "${numbers[@]}" --exp "$exp" --ngpu "$own_gpus" --first "$stage" --last "$stop_stage" -- "${stages[@]}"
