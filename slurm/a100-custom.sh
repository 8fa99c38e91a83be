#!/bin/bash
# Whisper on the A100: three clocks, three runs each. From the lab's folder:
#
#   sbatch --partition=NAME slurm/a100-custom.sh          # the partition's name is your cluster's
#   python 06-profile-energy.py collect results_a100_whisper_job_NUMBER
#
# Submitting the same again makes a new folder. To go on with an unfinished one, name it:
#   RESULTS=results_a100_whisper_job_NUMBER sbatch --partition=NAME slurm/a100-custom.sh
#SBATCH --job-name=whisper-a100
#SBATCH --output=%x-%A_%a.out
#SBATCH --array=0-8%1
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --exclusive
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
root=${LAB_ROOT:-${SLURM_SUBMIT_DIR:-$PWD}}
exec "${LAB_PYTHON:-python}" "$root/06-profile-energy.py" sweep --gpu-type A100 --profiling-mode custom --custom-frequencies 510,960,1410 \
  --num-runs 3 --app-name Whisper --app-params '--benchmark --model medium --num-samples 5' \
  --output-dir "${RESULTS:-results_a100_whisper_job_$SLURM_ARRAY_JOB_ID}" --run-index "$SLURM_ARRAY_TASK_ID"
