"""Choose one of several GPUs for a job.

Snakemake limits how many jobs use a GPU, but it doesn't say which GPU. So each job locks a slot of the least busy GPU.
The kernel holds the lock (flock), so it ends with the process, however the process ends.
"""

import getpass
import logging
import math
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from maskrd.errors import MaskrdError

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_TRIES = 2.0


def lock_folder() -> Path:
    """The folder of the locks: on this machine, like its GPUs, and of this user."""
    # A container's user may have no name.
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    return Path(tempfile.gettempdir()) / f"maskrd-gpus-{user}"


def claim_slot(devices: Sequence[str], jobs: int, folder: Path, patience: float | None = None) -> tuple[int, FileLock]:
    """Wait for a free slot. Returns the position of its device in `devices`, and the lock to hold until the end.

    `devices` are names that all processes of the machine agree on, such as UUIDs. `jobs` is how many may run at a time
    on all devices together: each device has ceil(jobs / devices) slots. Raises MaskrdError if no slot becomes free
    within `patience` seconds; None waits without limit.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    slots = max(1, math.ceil(jobs / len(devices)))
    logged, waited = False, 0.0
    while True:
        # One job looks at a time; otherwise two could both find the same device idle.
        with FileLock(folder / "choosing.lock"):
            claim = take_least_busy([[FileLock(folder / f"{name}-{k}.lock") for k in range(slots)] for name in devices])
        if claim is not None:
            return claim
        if not logged:
            logger.info("All %d GPU slots are taken; waiting for one.", slots * len(devices))
            logged = True
        if patience is not None and waited >= patience:
            raise MaskrdError(
                f"All {slots * len(devices)} GPU slots have been taken for {waited:.0f} s. Try again when a job has "
                "ended, or use device: cpu."
            )
        time.sleep(SECONDS_BETWEEN_TRIES)
        waited += SECONDS_BETWEEN_TRIES


def take_least_busy(slots: list[list[FileLock]]) -> tuple[int, FileLock] | None:
    """Lock one slot of the device with the most free slots. None if no slot is free."""
    free = [[lock for lock in locks if try_to_lock(lock)] for locks in slots]
    position = max(range(len(free)), key=lambda k: len(free[k]))
    kept = free[position][:1]
    for locks in free:
        for lock in locks:
            if lock not in kept:
                lock.release()
    return (position, kept[0]) if kept else None


def try_to_lock(lock: FileLock) -> bool:
    with suppress(Timeout):
        lock.acquire(blocking=False)
    return lock.is_locked
