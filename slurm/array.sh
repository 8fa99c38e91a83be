#!/bin/bash
# One task of a sweep: the array's index picks the run out of sweep_plan.json (or of the plan that the options give).
#
#   python 06-profile-energy.py sweep --slurm ...         submits this for you, missing runs only
#   sbatch --array=0-8%1 slurm/array.sh --gpu-type A100 --profiling-mode custom --custom-frequencies 510,960,1410 \
#          --num-runs 3 --output-dir results_a100_whisper  submits it by hand, from the lab's folder
#
# The folder of results must be on a file system that the nodes share.
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --exclusive            # a neighbour's work would be in the joules
#SBATCH --requeue              # after a node failure; what is done is not done again
#SBATCH --open-mode=append
set -euo pipefail
# SLURM runs a copy of this file, so its own place tells nothing.
root=${LAB_ROOT:-${SLURM_SUBMIT_DIR:-$PWD}}
# exec: a signal of scancel reaches Python itself, which stops the run and releases the clock.
exec "${LAB_PYTHON:-python}" "$root/06-profile-energy.py" sweep "$@" --run-index "$SLURM_ARRAY_TASK_ID"
