"""A real Slurm of three nodes on loopback, with accounting in a real MariaDB; needs root.

It takes Debian's slurm-wlm, slurmdbd, slurm-wlm-mysql-plugin, mariadb-server and munge. All of it runs in namespaces
of its own: the kernel ends every process there when the rehearsal ends, in whatever way, no job reaches a network, and
the folders that hide /etc/slurm and /run/munge are seen from inside alone. So the machine may have a Slurm of its own.
Slurm must read /etc/slurm/slurm.conf, because the plugin's job steps drop SLURM_CONF from their environment.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).parent
ETC = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf", "slurmdbd.conf")
NODES = ("gpu1", "gpu2", "cpu1")
MUNGE_SOCKET = Path("/run/munge/munge.socket.2")
PROGRAMS = (
    "slurmctld", "slurmd", "slurmdbd", "munged", "sbatch", "srun", "sacct", "mariadbd", "mariadb-install-db",
    "unshare", "ip",
)  # fmt: skip
PACKAGES = "slurm-wlm slurmdbd slurm-wlm-mysql-plugin mariadb-server munge iproute2"


class Cluster:
    """The daemons that run, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def start_node(self, name: str) -> None:
        """In a process namespace of its own: what kills its first process kills all jobs there, as a power cut does."""
        self.start(name, ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "slurmd", "-D", "-N", name])

    def kill_node(self, name: str) -> None:
        node = self.daemons.pop(name)
        node.kill()
        node.wait()

    def stop(self, name: str) -> None:
        process = self.daemons.pop(name)
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        for name in reversed(list(self.daemons)):
            self.kill_node(name) if name in NODES else self.stop(name)


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Run the cluster while the block does; its logs are in `folder`. Call `enter_namespaces` before."""
    cluster = Cluster(folder)
    with ExitStack() as stack:
        stack.callback(cluster.stop_all)
        password = secrets.token_hex()
        start_loopback()
        configure(folder, password)
        start_munge(cluster)
        start_accounting(cluster, password)
        cluster.start("slurmctld", ["slurmctld", "-D", "-i", "-c"])
        for name in NODES:
            cluster.start_node(name)
        wait_for(lambda: node_states() == dict.fromkeys(NODES, "idle"), "three idle nodes", 120)
        yield cluster


def enter_namespaces(module: str) -> None:
    """Start this program anew, as the first process of namespaces of its own; go on if it is that already."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        sys.exit(f"Missing: {', '.join(missing)}. apt-get install --no-install-recommends {PACKAGES}")
    if os.geteuid() != 0:
        sys.exit("Slurm's daemons are started as root here: use a machine to throw away.")
    if os.getpid() != 1:
        unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        os.execvp(unshare[0], [*unshare, sys.executable, "-m", module, *sys.argv[1:]])


def start_loopback() -> None:
    """The only network there is. slurmdbd wants an address that isn't 127.0.0.1, though nobody uses it."""
    for command in ("ip link set lo up", "ip address add 192.0.2.1/32 dev lo"):
        subprocess.run(command.split(), check=True)


def hide(folder: Path) -> None:
    """An empty folder over this one."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "rehearsal", folder], check=True)


def configure(folder: Path, password: str) -> None:
    words = {"DIR": folder, "HOST": socket.gethostname().split(".")[0], "PASSWORD": password}
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    for number in range(6):
        subprocess.run(["mknod", folder / f"nvidia{number}", "c", "1", "3"], check=True)
    hide(ETC)
    for name in FILES:
        text = (HERE / name).read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(f"@{word}@", str(value))
        (ETC / name).touch(0o600)  # slurmdbd refuses a configuration that others may read
        (ETC / name).write_text(text, encoding="utf-8")


def start_munge(cluster: Cluster) -> None:
    hide(MUNGE_SOCKET.parent)
    shutil.chown(MUNGE_SOCKET.parent, "munge", "munge")
    as_munge = ["setpriv", "--reuid=munge", "--regid=munge", "--init-groups"]
    cluster.start("munged", [*as_munge, "munged", "--foreground"])
    wait_for(MUNGE_SOCKET.exists, "munged", 30)


def start_accounting(cluster: Cluster, password: str) -> None:
    """MariaDB, slurmdbd, and in it the cluster, an account and its user."""
    data, setup = cluster.folder / "mariadb", cluster.folder / "setup.sql"
    own = ["--no-defaults", f"--datadir={data}", "--user=root"]
    run_quietly("mariadb-install-db", *own, "--skip-test-db")
    setup.touch(0o600)
    setup.write_text(
        f"CREATE USER 'slurm'@'localhost' IDENTIFIED BY '{password}';\nGRANT ALL ON *.* TO 'slurm'@'localhost';\n"
    )
    network = ["--bind-address=127.0.0.1", "--port=16806", f"--socket={cluster.folder}/mariadb.sock"]
    small = ["--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900"]
    cluster.start("mariadbd", ["mariadbd", *own, *network, *small, f"--init-file={setup}"])
    wait_for(lambda: is_listening(16806), "MariaDB", 60)
    cluster.start("slurmdbd", ["slurmdbd", "-D"])
    wait_for(lambda: is_listening(16819), "slurmdbd", 60)
    for words in ("cluster rehearsal", "account paper Cluster=rehearsal", "user root Account=paper"):
        run_quietly("sacctmgr", "-i", "add", *words.split())


def run_quietly(*command: str) -> None:
    """Show what a program said only if it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def node_states() -> dict[str, str]:
    listing = subprocess.run(["sinfo", "-h", "-N", "-o", "%N %T"], capture_output=True, text=True, check=False).stdout
    return dict(line.split() for line in listing.splitlines())


def set_node(name: str, *words: str) -> None:
    subprocess.run(["scontrol", "update", f"NodeName={name}", *words], check=True)


def wait_for(condition: Callable[[], object], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"Waited {seconds} s for {what} in vain.")
        time.sleep(0.5)
