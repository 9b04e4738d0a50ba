"""Training one model: load its inputs, learn, write it to the store.

There are two ways to learn: by a gradient, in epochs (`loop.py`), and in one pass (`one_pass.py`). Results made
elsewhere aren't learned but kept (`anomaly_maps.py`).
"""

import logging
from pathlib import Path

from safetensors import SafetensorError

from maskrd.config.record import TrainingRecord
from maskrd.engine.anomaly_maps import keep_maps
from maskrd.engine.inputs import Inputs, TrainingJob, load_inputs
from maskrd.engine.interruption import stop_on_signals
from maskrd.engine.loop import Learned, Trainer
from maskrd.engine.machine import code_commit, describe, explain_out_of_memory
from maskrd.engine.model_file import write_model
from maskrd.engine.one_pass import learn_in_one_pass
from maskrd.engine.state import StateFolder
from maskrd.engine.store import Stored, write_history
from maskrd.errors import MaskrdError
from maskrd.methods.base import OnePassMethod
from maskrd.methods.external import External
from maskrd.methods.from_file import errors_of_file

logger = logging.getLogger(__name__)

LEAK = "the checkpoint was chosen on the test images"


def train(job: TrainingJob, stored: Stored | None = None) -> None:
    """Write a job's model: the stored one if it is finished, otherwise a new one. Continues an interrupted training.

    `stored`: `job.stored`, from a caller that has it already. To find it, index and teacher are read.
    Raises MaskrdError for errors that the user can correct, and Interrupted after SIGINT, SIGTERM or SIGHUP.
    """
    stored = stored or job.stored
    with stored.locked():
        if not stored.find(job.model, job.history, job.keep_weights):  # another run may have finished it
            train_stored(job, stored)
            stored.deliver(job.model, job.history, job.keep_weights)


def train_stored(job: TrainingJob, stored: Stored) -> None:
    """Train a model into its folder of the store."""
    states = StateFolder(stored.folder, job.state_minutes * 60)
    state = states.load()
    remedy = (
        f", keep fewer teacher features there (MASKRD_CACHE_GB, now {job.cache_gb:g}), "
        f"or lower batch_size (now {job.recipe.batch_size}), which makes another model"
    )
    with errors_of_file(job.recipe), explain_out_of_memory(remedy):
        inputs = load_inputs(job, state["precision"] if state else None)
        external = isinstance(inputs.method, External)
        learned = keep_maps(job, inputs) if external else learn(inputs, stored, states, state)
        write(inputs, learned, stored)


def learn(inputs: Inputs, stored: Stored, states: StateFolder, state: dict | None) -> Learned:
    """Learn in one pass, or in epochs. The epochs start at the saved state of an earlier run, if there is one."""
    if isinstance(inputs.method, OnePassMethod):
        with stop_on_signals():
            return learn_in_one_pass(inputs)
    trainer = Trainer(inputs)
    if state is not None:
        restore(trainer, state, states.last)
        logger.info("Continuing at epoch %d, step %d.", trainer.progress.epoch + 1, trainer.progress.step)
    with stop_on_signals() as stop:
        return trainer.run(stored, states, stop)


def restore(trainer: Trainer, state: dict, path: Path) -> None:
    """Load a state into the trainer. Raises MaskrdError if it is the state of another network."""
    try:
        trainer.restore(state)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise MaskrdError(
            f"{path}: not a state of this training ({error}). Delete it to continue from the one before."
        ) from None


def write(inputs: Inputs, learned: Learned, stored: Stored) -> None:
    """Write the finished model with its record, and its training curve."""
    known = stored.identity
    record = TrainingRecord(
        **{key: known[key] for key in ("dataset", "category", "seed", "data_sha256", "teacher_sha256")},
        identity=stored.digest,
        backbone=inputs.backbone,
        weights_sha256=inputs.weights_sha256,
        recipe=inputs.settings,
        **describe(inputs.device),
        commit=code_commit(),
        epochs=learned.epochs,
        best_epoch=learned.best_epoch,
        leak=LEAK if inputs.settings.leaks else None,
        images=len(inputs.train_positions),
        seconds=round(learned.seconds, 2),
        parameters=inputs.method.count_learned(),
    )
    tensors = {name: tensor.contiguous().cpu() for name, tensor in learned.weights.items()}
    try:
        write_history(stored.history, learned.history)
        write_model(stored.model, tensors, record)
        stored.finish()
    except (OSError, SafetensorError) as error:
        raise MaskrdError(
            f"{stored.model}: can't be written ({error}). Check the free space and the permissions. "
            "The next run continues from the last saved state."
        ) from None
