#!/bin/sh
# LSF: lsf.sh submit CPUS MEGABYTES MINUTES QUEUE GPUS SCRIPT prints the job's number;
#      lsf.sh status JOB prints running, success or failed.
set -eu
case $1 in
submit)
  cpus=$2 memory=$3 minutes=$4 queue=$5 gpus=$6 script=$7
  set --
  [ "$gpus" -eq 0 ] || set -- -gpu "num=$gpus"
  mkdir -p logs/cluster
  # "Job <12> is submitted to queue <gpu>."
  bsub -J maskrd -q "$queue" -n "$cpus" -R "span[hosts=1] rusage[mem=${memory}MB]" -M "${memory}MB" -W "$minutes" "$@" \
    -o logs/cluster/%J.log "$script" | sed -n 's/^Job <\([0-9]*\)>.*/\1/p'
  ;;
status)
  # A server that doesn't answer is no reason to give the job up.
  case $(bjobs -noheader -o stat "$2") in
    DONE) echo success ;;
    EXIT) echo failed ;;
    *) echo running ;;
  esac
  ;;
esac
