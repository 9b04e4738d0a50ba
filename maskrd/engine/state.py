"""The saved state of a training: the last one and the one before, each whole or absent."""

import logging
import time
from pathlib import Path

import torch

from maskrd.engine.store import LAST_STATE, PREVIOUS_STATE, UNREADABLE_STATE
from maskrd.errors import MaskrdError
from maskrd.files import atomic_path, sha256_file

logger = logging.getLogger(__name__)

NO_MEMORY = "can't allocate memory"  # torch's words; the error has no class of its own
CONTENT = {"precision", "weights", "optimizer", "best_weights", "progress"}


class StateFolder:
    """Keeps the last state and the one before, in the folder of the training, which no other training shares."""

    def __init__(self, folder: Path, interval: float) -> None:
        self.folder, self.interval = folder, interval
        self.last, self.previous = folder / LAST_STATE, folder / PREVIOUS_STATE
        self.saved_at = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.interval

    def save(self, state: dict) -> None:
        try:
            with atomic_path(self.last) as temporary:
                torch.save(state, temporary)
                if self.last.exists():
                    self.last.replace(self.previous)
        except (OSError, RuntimeError) as error:  # RuntimeError: torch, on a full disk
            raise MaskrdError(
                f"{self.folder}: the training state can't be saved ({error}). Check the free space and the "
                "permissions. The next run continues from the state before."
            ) from None
        self.saved_at = time.monotonic()

    def load(self) -> dict | None:
        """The newest readable state, or None.

        Raises OSError where the disk or the permissions don't let it be read, and MaskrdError where memory doesn't.
        """
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                state = torch.load(path, "cpu", weights_only=True)
                if not isinstance(state, dict) or set(state) != CONTENT:
                    raise ValueError("not a state")
                return state
            except Exception as error:  # a torn file fails in many ways
                if isinstance(error, MemoryError) or NO_MEMORY in str(error):
                    raise MaskrdError(f"{path}: there is no memory to read it. Give the job more of it.") from None
                sha256_file(path)  # tells whether the file can be read at all: another time it may be whole
                logger.warning("%s: unreadable (%s), trying the state before.", path, type(error).__name__)
                # Otherwise the next save would replace the good state by this one.
                path.replace(self.folder / UNREADABLE_STATE)
        return None
