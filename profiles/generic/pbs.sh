#!/bin/sh
# PBS: pbs.sh submit CPUS MEGABYTES MINUTES QUEUE GPUS SCRIPT prints the job's number;
#      pbs.sh status JOB prints running, success or failed.
set -eu
case $1 in
submit)
  request=1:ncpus=$2:mem=$3mb
  [ "$6" -eq 0 ] || request=$request:ngpus=$6
  mkdir -p logs/cluster
  qsub -V -N maskrd -q "$5" -l select="$request" -l walltime="$(($4 / 60)):$(($4 % 60)):00" -j oe -o logs/cluster "$7"
  ;;
status)
  # -x: finished jobs, too. A server that doesn't answer is no reason to give the job up.
  qstat -x -f "$2" | awk '
    $1 == "job_state" { state = $3 }
    $1 == "Exit_status" { code = $3 }
    END { print (state != "F" ? "running" : code == "0" ? "success" : "failed") }'
  ;;
esac
