"""Stand-ins for the commands of schedulers, on the PATH of a test."""

import os
from pathlib import Path

# Writes its words to FOLDER/calls and refuses the job: only what was asked for matters.
REFUSE = """#!/bin/sh
for word; do printf '%s\\n' "$word"; done >> FOLDER/calls
echo "refused" >&2
exit 1
"""
SILENT = "#!/bin/sh\n"
# Runs the job script in the background and answers with a number; the first job is lost, as with its node.
QSUB = """#!/bin/sh
number=$(($(cat FOLDER/number 2>/dev/null || echo 0) + 1))
echo $number > FOLDER/number
echo "$@" >> FOLDER/calls
for script; do :; done
if [ $number = 1 ]; then echo 271 > FOLDER/1.code; else
  { sh "$script" > FOLDER/$number.log 2>&1; echo $? > FOLDER/$number.new; mv FOLDER/$number.new FOLDER/$number.code; } \
    > /dev/null 2>&1 &
fi
echo $number.server
"""
QSTAT = """#!/bin/sh
echo "Job Id: $3"
if [ -e FOLDER/${3%.server}.code ]; then
  echo "    job_state = F"
  echo "    Exit_status = $(cat FOLDER/${3%.server}.code)"
else
  echo "    job_state = R"
fi
"""
SLURM = {"sbatch": REFUSE, **dict.fromkeys(("sinfo", "squeue", "sacct", "scontrol", "sacctmgr", "sshare"), SILENT)}
PBS = {"qsub": QSUB, "qstat": QSTAT, "qdel": SILENT}


def put_on_path(folder: Path, commands: dict[str, str], monkeypatch) -> None:
    """Write each command's script below `folder`, before all others on the PATH; FOLDER in them is `folder`."""
    folder.mkdir(exist_ok=True)
    for name, script in commands.items():
        (folder / name).write_text(script.replace("FOLDER", str(folder)), encoding="utf-8")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
