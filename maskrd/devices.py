"""Which of several GPUs a job takes.

Snakemake counts how many jobs use a GPU but doesn't say which. Each job therefore locks a slot of the least
busy GPU. The lock is the kernel's (flock): it ends with the process, whatever ends it.
"""

import logging
import math
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_TRIES = 2.0


def lock_folder() -> Path:
    """Local to the machine, as its GPUs are, and to the user."""
    return Path(tempfile.gettempdir()) / f"maskrd-gpus-{os.getuid()}"


def claim_slot(devices: Sequence[str], jobs: int, folder: Path) -> tuple[int, FileLock]:
    """Wait for a free slot; return the position of its device in `devices` and the lock to keep until the end.

    `devices` are names that all processes of the machine agree on, such as UUIDs. `jobs` is how many may run
    at a time on all of them: each device has ceil(jobs / devices) slots.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    slots = max(1, math.ceil(jobs / len(devices)))
    told = False
    while True:
        # One job looks at a time; otherwise two could both find the same device idle.
        with FileLock(folder / "choosing.lock"):
            claim = take_least_busy([[FileLock(folder / f"{name}-{k}.lock") for k in range(slots)] for name in devices])
        if claim is not None:
            return claim
        if not told:
            logger.info("All %d GPU slots are taken; waiting for one.", slots * len(devices))
            told = True
        time.sleep(SECONDS_BETWEEN_TRIES)


def take_least_busy(slots: list[list[FileLock]]) -> tuple[int, FileLock] | None:
    """Lock one slot of the device that has most of them free; None if there is none."""
    free = [[lock for lock in locks if acquired(lock)] for locks in slots]
    position = max(range(len(free)), key=lambda k: len(free[k]))
    kept = free[position][:1]
    for locks in free:
        for lock in locks:
            if lock not in kept:
                lock.release()
    return (position, kept[0]) if kept else None


def acquired(lock: FileLock) -> bool:
    with suppress(Timeout):
        lock.acquire(blocking=False)
    return lock.is_locked
