"""A real Slurm of one node on loopback, from Debian's slurm-wlm and munge; needs root.

Slurm reads /etc/slurm/slurm.conf: the plugin's job steps drop SLURM_CONF from their environment. The links put
there are removed at the end, and every process that was started is stopped by its pid.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).parent
ETC = Path("/etc/slurm")
MUNGE_SOCKET = Path("/run/munge/munge.socket.2")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "squeue", "scancel", "sinfo")


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Run the cluster while the block does; its logs are in `folder`."""
    check_machine()
    with ExitStack() as stack:
        configure(folder, stack)
        if not MUNGE_SOCKET.exists():
            stack.enter_context(munge(folder))
        stack.enter_context(daemon(["slurmctld", "-D", "-i", "-c"], folder))
        stack.enter_context(daemon(["slurmd", "-D", "-N", host()], folder))
        wait_until_idle()
        yield


def check_machine() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        sys.exit(f"Missing: {', '.join(missing)}. apt-get install --no-install-recommends slurm-wlm munge")
    if os.geteuid() != 0:
        sys.exit("Slurm's daemons are started as root here: use a machine to throw away.")
    if (ETC / "slurm.conf").exists():
        sys.exit(f"{ETC}/slurm.conf exists: this machine has a Slurm of its own, which is left alone.")


def host() -> str:
    return socket.gethostname().split(".")[0]


def configure(folder: Path, stack: ExitStack) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 * 9 // 10
    words = {"DIR": folder, "HOST": host(), "CORES": os.cpu_count(), "MEMORY": memory}
    for name in ("state", "spool"):
        (folder / name).mkdir()
    for number in range(2):
        subprocess.run(["mknod", folder / f"nvidia{number}", "c", "1", "3"], check=True)
    ETC.mkdir(exist_ok=True)
    for name in ("slurm.conf", "gres.conf"):
        text = (HERE / name).read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(f"@{word}@", str(value))
        (folder / name).write_text(text, encoding="utf-8")
        (ETC / name).symlink_to(folder / name)
        stack.callback((ETC / name).unlink)


@contextmanager
def munge(folder: Path) -> Iterator[None]:
    MUNGE_SOCKET.parent.mkdir(exist_ok=True)
    shutil.chown(MUNGE_SOCKET.parent, "munge", "munge")
    with daemon(["setpriv", "--reuid=munge", "--regid=munge", "--init-groups", "munged", "--foreground"], folder):
        wait_for(MUNGE_SOCKET.exists, "munged", 30)
        yield


@contextmanager
def daemon(command: list[str], folder: Path) -> Iterator[None]:
    with (folder / f"{command[0]}.out").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_idle() -> None:
    def idle() -> bool:
        state = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False)
        return state.stdout.strip() == "idle"

    wait_for(idle, "an idle node", 60)


def wait_for(condition, what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"Waited {seconds} s for {what} in vain.")
        time.sleep(0.5)
