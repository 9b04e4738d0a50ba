"""The resumable state of a training: two generations of it, each whole or absent."""

import logging
import shutil
import time
from pathlib import Path

import torch

from maskrd.errors import MaskrdError
from maskrd.files import atomic_path

logger = logging.getLogger(__name__)


class StateFolder:
    """Keeps the last state and the one before, in a folder that Snakemake doesn't know as an output.

    `digest` names recipe, data, teacher and seed: a state of another digest is set aside, not resumed.
    """

    def __init__(self, folder: Path, digest: str, interval: float) -> None:
        self.folder, self.digest, self.interval = folder, digest, interval
        self.last, self.previous = folder / "last.pt", folder / "previous.pt"
        self.saved_at = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.interval

    def save(self, state: dict) -> None:
        try:
            with atomic_path(self.last) as temporary:
                torch.save({"digest": self.digest, **state}, temporary)
                if self.last.exists():
                    self.last.replace(self.previous)
        except (OSError, RuntimeError) as error:  # torch turns a full disk into the latter
            raise MaskrdError(
                f"{self.folder}: the training state cannot be saved ({error}). Is the disk full, or the folder "
                "read-only? The next run goes on from the state before."
            ) from None
        self.saved_at = time.monotonic()

    def load(self) -> dict | None:
        """The newest readable state of this digest, or None."""
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                state = torch.load(path, "cpu", weights_only=True)
            except Exception as error:  # a torn file fails in many ways
                logger.warning("%s: unreadable (%s), trying the state before.", path, type(error).__name__)
                path.unlink()  # or the next state saved would push it over the good one before
                continue
            if state.pop("digest", None) == self.digest:
                return state
            self.set_aside()
            return None
        return None

    def set_aside(self) -> None:
        aside = self.folder.with_name(f"{self.folder.name}.set-aside-{time.strftime('%Y%m%d-%H%M%S')}")
        self.folder.rename(aside)
        logger.warning("%s: of another recipe, data or teacher; moved to %s.", self.folder, aside.name)

    def remove(self) -> None:
        """Also what a killed job left half-written."""
        shutil.rmtree(self.folder, ignore_errors=True)
