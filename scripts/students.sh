#!/usr/bin/env bash
# Everything behind the tables of results/students.md: data, teacher, dump of the teacher, students. Can be killed and run again: it goes on.
#   scripts/students.sh [OUT]      JOBS=n trains n students at once, one CPU thread each (default: one for each core)
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-out/students}
jobs=${JOBS:-$(nproc)}
trainer=${TRAINER:-target/release/trainer}
[ -n "${TRAINER:-}" ] || cargo build --release --bin trainer

# Large tensors come and go in every step: huge pages and a heap that is not given back save 15 % of it.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=4294967296:glibc.malloc.top_pad=268435456}

# Frames of the generator's 64 lasers, cut to what can be turned into the range trained on.
"$trainer" convert cache 'synth:seed=21,samples=1200,sensor=spinning64' --out "$out/train" --range=-36,-36,-4,36,36,6
"$trainer" convert cache 'synth:seed=22,samples=150,sensor=spinning64' --out "$out/val" --range=-36,-36,-4,36,36,6
"$trainer" convert gt-database --data "$out/train" --out "$out/gt"

# A range that two CPU cores can train; published values for everything that is not named here and in config/train.
settings=(--set 'range=[-23.04,-23.04,-2,23.04,23.04,4]' --set "augment.gt_sampling={database: $out/gt}"
  --set precision=bf16 --set model_dtype=f16 --set validation.every_epochs=0)
common=(--data "$out/train" --val "$out/val" --resume "${settings[@]}")

"$trainer" train --config config/train/cp-pillar.yaml "${common[@]}" --set epochs=5 --out "$out/teacher"

# What the teacher says about every frame, once for all students.
"$trainer" dump-teacher --config config/train/cp-pillar-v0.64-xxs_sparsekd.yaml --model "$out/teacher/model" --data "$out/train" --out "$out/dump" \
  --mode eval --precision bf16 "${settings[@]}" --epochs 10
taught=(--set "distill.teacher.from={dump: $out/dump}" --set distill.teacher.mode=eval)
inherit="{from: $out/teacher/model, how: prefix}"

# run STUDENT VARIANT SEED EPOCHS OUT
run() {
  local config=config/train/$1_sparsekd.yaml terms=()
  case $2 in
    plain) config=config/train/$1.yaml ;;
    tgi) terms=("${taught[@]}" --set "distill.inherit=$inherit" --set distill.logit=null --set distill.label=null) ;;
    tgi_*) terms=("${taught[@]}" --set "distill.inherit=${inherit/prefix/${2#tgi_}}" --set distill.logit=null --set distill.label=null) ;;
    logit) terms=("${taught[@]}" --set distill.inherit=null --set distill.label=null) ;;
    label) terms=("${taught[@]}" --set distill.inherit=null --set distill.logit=null) ;;
    label_corrected) terms=("${taught[@]}" --set distill.inherit=null --set distill.logit=null --set distill.label.merge=corrected) ;;
    all) terms=("${taught[@]}" --set "distill.inherit=$inherit") ;;
    all_corrected) terms=("${taught[@]}" --set "distill.inherit=$inherit" --set distill.label.merge=corrected) ;;
  esac
  echo "students: $1 $2 seed $3, $4 epochs"
  mkdir -p "$(dirname "$5")"
  "$trainer" train --config "$config" "${common[@]}" --set "epochs=$4" --set num_threads=1 --set "seed=$3" --out "$5" "${terms[@]}" 2>> "$5.log"
}

queue() {
  for what in "$@"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    # shellcheck disable=SC2086
    run $what &
  done
  while [ "$(jobs -rp | wc -l)" -gt 0 ]; do wait -n; done
}

xxs=cp-pillar-v0.64-xxs
runs=()
for variant in plain all tgi logit label all_corrected; do
  for seed in 1 2 3; do runs+=("$xxs $variant $seed 3 $out/$xxs/$variant/seed$seed"); done
done
runs+=("$xxs all_corrected 1 10 $out/shipped") # becomes models/cp-pillar-v0.64-xxs
for student in cp-pillar-v0.64-xs cp-pillar-v0.64-s cp-pillar-v0.64; do
  for variant in plain all_corrected; do runs+=("$student $variant 1 3 $out/$student/$variant/seed1"); done
done
for variant in label_corrected tgi_prefix_released tgi_bn_scale tgi_l1_norm; do
  for seed in 1 2 3; do runs+=("$xxs $variant $seed 3 $out/$xxs/$variant/seed$seed"); done
done
queue "${runs[@]}"
python3 scripts/students_table.py "$out"
