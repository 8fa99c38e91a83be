#!/bin/bash
# Whisper on a node's processors: three runs at default clocks. From the lab's folder:
#
#   sbatch --partition=NAME slurm/cpu-baseline.sh
#   python 06-profile-energy.py collect results_cpu_whisper_job_NUMBER
#SBATCH --job-name=whisper-cpu
#SBATCH --output=%x-%A_%a.out
#SBATCH --array=0-2%1
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --exclusive
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
root=${LAB_ROOT:-${SLURM_SUBMIT_DIR:-$PWD}}
exec "${LAB_PYTHON:-python}" "$root/06-profile-energy.py" sweep --gpu-type CPU --profiling-mode baseline \
  --num-runs 3 --app-name Whisper --app-params '--benchmark --model nano --num-samples 3 --device cpu' \
  --output-dir "${RESULTS:-results_cpu_whisper_job_$SLURM_ARRAY_JOB_ID}" --run-index "$SLURM_ARRAY_TASK_ID"
