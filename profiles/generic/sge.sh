#!/bin/sh
# SGE: sge.sh submit CPUS MEGABYTES MINUTES QUEUE GPUS SCRIPT prints the job's number;
#      sge.sh status JOB prints running, success or failed.
# `smp` and `gpu` are what many clusters call their parallel environment and their GPUs: `qconf -spl` and `qconf -sc`.
set -eu
case $1 in
submit)
  cpus=$2 memory=$3 minutes=$4 queue=$5 gpus=$6 script=$7
  set --
  [ "$gpus" -eq 0 ] || set -- -l "gpu=$gpus"
  mkdir -p logs/cluster
  # Memory is asked for each CPU.
  qsub -terse -V -cwd -S /bin/sh -N maskrd -q "$queue" -pe smp "$cpus" -l "h_vmem=$((memory / cpus))M" \
    -l "h_rt=$((minutes * 60))" "$@" -j y -o logs/cluster "$script"
  ;;
status)
  if qstat -j "$2" >/dev/null 2>&1; then
    echo running
  else
    # An ended job is in the accounts some seconds later.
    { qacct -j "$2" 2>/dev/null || true; } | awk '
      $1 == "failed" { failed = $2 }
      $1 == "exit_status" { code = $2; seen = 1 }
      END { print (!seen ? "running" : failed == 0 && code == 0 ? "success" : "failed") }'
  fi
  ;;
esac
