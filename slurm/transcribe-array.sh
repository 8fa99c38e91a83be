#!/bin/bash
# An archive of recordings as a SLURM array, one shard of it a task. From the lab's folder:
#
#   sbatch --array=1-8 slurm/transcribe-array.sh FOLDER --output-dir OUT --model base --precision int8
#   sbatch --array=1-8 ...                               the same again does what a killed task did not finish
#   python -m whisper_lab archive collect OUT
#
# The options are those of `python -m whisper_lab archive`. The array must be 1-N, whole: N is the number of shards.
# To submit some of its tasks alone, say how many there are: SHARDS=8 sbatch --array=3,5 slurm/transcribe-array.sh ...
# FOLDER and OUT must be on a file system that the nodes share. --cpus-per-task=2 gives each task two threads.
#SBATCH --job-name=transcribe
#SBATCH --output=%x-%A_%a.out
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --requeue              # after a node failure; what is finished is not done again
#SBATCH --open-mode=append
set -euo pipefail
if [ -z "${SHARDS:-}" ]; then
  if [ "$SLURM_ARRAY_TASK_MIN" != 1 ] || [ "$SLURM_ARRAY_TASK_COUNT" != "$SLURM_ARRAY_TASK_MAX" ]; then
    echo "error: this array is not 1-N, so the number of shards is not known" >&2
    echo "  try: sbatch --array=1-$SLURM_ARRAY_TASK_MAX ..., or SHARDS=N sbatch --array=... for some of N tasks" >&2
    exit 2
  fi
  SHARDS=$SLURM_ARRAY_TASK_COUNT
fi
# SLURM runs a copy of this file, so its own place tells nothing.
root=${LAB_ROOT:-${SLURM_SUBMIT_DIR:-$PWD}}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# exec: a signal of scancel reaches Python itself, which gives back what it has claimed.
exec "${LAB_PYTHON:-python}" -m whisper_lab archive --threads "${SLURM_CPUS_PER_TASK:-1}" "$@" \
  --shard "$SLURM_ARRAY_TASK_ID/$SHARDS"
