#!/bin/bash
# A whole node and its GPUs in one submission: sbatch profiles/slurm/whole_node.sh tables
#
# For clusters that give out nodes rather than GPUs. Snakemake runs on the node itself and shares the GPUs out among
# the trainings, so no profile for Slurm is named. Submit it again until it ends with exit code 0: it goes on.
#SBATCH --job-name=maskrd
#SBATCH --partition=gpu
#SBATCH --nodes=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=4
#SBATCH --mem=0
#SBATCH --time=24:00:00

# A submission that was killed leaves its lock behind. Never have two of them at work in one folder.
.venv/bin/snakemake --unlock
# exec: at the time limit the signal reaches Snakemake and its trainings, which save their states.
exec .venv/bin/snakemake --cores "$SLURM_CPUS_ON_NODE" --resources gpu="$SLURM_GPUS_ON_NODE" "$@"
