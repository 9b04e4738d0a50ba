"""Trainings by their content: what was learned once from the same recipe, images and teacher is never learned again.

Each training has a folder, named by the digest of all that decides its numbers: no date, path, device or number of
threads. It holds the unfinished training's state, and later the finished model. This imports no torch, so that a
finished model is found in a second.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from maskrd.config.files import HISTORY_FILE, WEIGHTS_FILE
from maskrd.config.settings import Training, canonical_json
from maskrd.data.index_file import Index
from maskrd.files import atomic_path, parse_json, sha256_file, sha256_json, temporary_prefix, write_csv, write_json

logger = logging.getLogger(__name__)

FORMAT = 1  # Raise it when a change of the code changes the numbers of a recipe: then nothing stored is found again.
IDENTITY, PROGRESS, FINISHED = "identity.json", "progress.json", "finished.json"
LAST_STATE, PREVIOUS_STATE, UNREADABLE_STATE = "last.pt", "previous.pt", "unreadable.pt"
LOCK = "lock"
UNFINISHED_FILES = (PROGRESS, LAST_STATE, PREVIOUS_STATE, UNREADABLE_STATE)
FILES = (*UNFINISHED_FILES, WEIGHTS_FILE, HISTORY_FILE, FINISHED, IDENTITY, LOCK)
DIGEST = re.compile(r"[0-9a-f]{64}")
POLL = 2  # seconds between two looks at a lock that another run holds


def identity(
    recipe: Training, seed: int, index: Path, teacher: Path, digest: Callable[[Path], str] = sha256_file
) -> dict:
    """All that decides the numbers of a training, as JSON. Raises MaskrdError for a damaged index.

    `digest` gives the sha256 of a file; for many models, one that remembers.
    """
    images = Index.read(index)
    read = {path.as_posix(): digest(path) for path in recipe.files_read(images.category)}
    return {
        "format": FORMAT,
        "dataset": images.dataset,
        "category": images.category,
        "recipe": json.loads(canonical_json(recipe)),
        "seed": seed,
        "data_sha256": digest(index),
        "teacher_sha256": digest(teacher),
        **({"files": read} if read else {}),
    }


class Stored:
    """The folder of one training in a store. Only files named in `FILES` are ever written or removed there.

    `identity`: that of the training, for a job that may train it; None for what was merely found in the store.
    """

    def __init__(self, folder: Path, identity: dict | None = None) -> None:
        self.folder, self.identity = folder, identity
        self.model, self.history = folder / WEIGHTS_FILE, folder / HISTORY_FILE

    @property
    def digest(self) -> str:
        return self.folder.name

    @classmethod
    def of(cls, store: Path, wanted: dict) -> "Stored":
        """The place of a training with the `identity` `wanted`. Nothing is written before `locked`."""
        return cls(store / sha256_json(wanted), wanted)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Have the training to oneself; wait while another run works on it. A killed run holds no lock.

        The folder is made where it isn't there, with the identity in it. Before the lock is held, `maskrd prune` may
        remove both.
        """
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("Another run trains this model at this moment (%s); waiting for it.", self.folder)
            lock.acquire(poll_interval=POLL)
        try:
            if self.identity is not None and self.read(IDENTITY) != self.identity:
                write_json(self.folder / IDENTITY, self.identity)
            yield
        finally:
            lock.release()

    def is_locked(self) -> bool:
        """Whether a run works on it at this moment."""
        if not (self.folder / LOCK).exists():
            return False
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def read(self, name: str) -> dict:
        """The content of one of the JSON files. Empty if it is missing or damaged."""
        try:
            content = parse_json((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def is_finished(self) -> bool:
        """Whether the model and its curve exist as they were written. If not, the log says why."""
        recorded = self.read(FINISHED)
        if not recorded:
            return False
        if not self.model.exists():
            logger.info("This model was trained before, and its weights were deleted (keep_weights). Training again.")
            return False
        found = {name: sha256_file(path) for name, path in self._results() if path.exists()}
        if any(recorded.get(name) != found.get(name) for name, _ in self._results()):
            logger.warning("%s: changed since it was written. Training again.", self.folder)
            return False
        return True

    def finish(self) -> None:
        """Record that model and curve are complete, and remove the files of the unfinished training."""
        write_json(self.folder / FINISHED, {name: sha256_file(path) for name, path in self._results()})
        self.remove(UNFINISHED_FILES)

    def _results(self) -> list[tuple[str, Path]]:
        return [(WEIGHTS_FILE, self.model), (HISTORY_FILE, self.history)]

    def deliver(self, model: Path, history: Path, keep_weights: bool = True) -> bool:
        """Link the finished model and its curve to the given names. Returns False, and does nothing, if unfinished.

        Without hard links on the file system they are copies. Without `keep_weights` the store's own model is removed.
        """
        if not self.is_finished():
            return False
        link_or_copy(self.history, history)
        link_or_copy(self.model, model)
        if not keep_weights:
            self.remove((WEIGHTS_FILE,))
        return True

    def find(self, model: Path, history: Path, keep_weights: bool = True) -> bool:
        """`deliver` what an earlier run trained, and say so in the log."""
        found = self.deliver(model, history, keep_weights)
        if found:
            logger.info("Nothing to train: %s holds the finished model, and its digest is right.", self.folder)
        return found

    def write_progress(self, history: list[dict[str, float]], epochs: int, seconds: float) -> None:
        """Write the progress for `maskrd status`: the curve so far, the number of epochs in all, the seconds so far."""
        write_history(self.history, history)
        write_json(
            self.folder / PROGRESS,
            {"epoch": len(history), "epochs": epochs, "loss": history[-1]["loss"], "seconds": round(seconds, 2)},
        )

    def files(self, names: tuple[str, ...] = FILES) -> list[Path]:
        """Those of the files that exist, and their half-written versions from killed runs."""
        written = [self.folder / name for name in names if (self.folder / name).is_file()]
        halves = (self.folder.glob(f"{temporary_prefix(name)}*.tmp*") for name in names)
        return written + [path for found in halves for path in found]

    def size(self) -> int:
        """Bytes. A running training may remove a file meanwhile, which then counts as nothing."""
        total = 0
        for path in self.files():
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def remove(self, names: tuple[str, ...] = FILES) -> None:
        """Remove these files, and the folder if it is empty then."""
        for path in self.files(names):
            path.unlink(missing_ok=True)
        if names == FILES and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def remove_unless_locked(self) -> bool:
        """Remove the training, unless a run works on it. Returns whether it did."""
        lock = FileLock(self.folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        try:
            self.remove()
        finally:
            lock.release()
        return True


def stored_trainings(store: Path) -> list[Stored]:
    """All folders of a store, by digest."""
    folders = sorted(store.iterdir()) if store.is_dir() else []
    return [Stored(path) for path in folders if path.is_dir() and DIGEST.fullmatch(path.name)]


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy if the file system has no links. It is whole or absent."""
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, temporary)


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Write the training curve: a line for each epoch, or none for a method without a loss."""
    header = history[0] if history else ("epoch", "loss")
    write_csv(path, header, ([f"{value:.6g}" for value in line.values()] for line in history))
