"""Training: the same numbers every time, whatever interrupts it."""

import csv
import errno
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from maskrd.cli import app
from maskrd.data.index_file import Index
from maskrd.data.samples import load_train
from maskrd.engine import training
from maskrd.engine.features import FeatureSource
from maskrd.engine.inputs import TrainingJob, load_inputs
from maskrd.engine.interruption import Interrupted
from maskrd.engine.loop import Trainer
from maskrd.engine.model_file import read_training
from maskrd.engine.sampling import batches, split_validation
from maskrd.engine.state import CONTENT, StateFolder
from maskrd.engine.training import train
from maskrd.errors import MaskrdError
from maskrd.files import sha256_file
from maskrd.methods.maskrd import MaskedReverseDistillation
from maskrd.methods.teacher import load_teacher

LONGER = {"epochs": 6, "validation_fraction": 0.34, "checkpoint": "best_validation"}


def history(job: TrainingJob) -> list[dict[str, float]]:
    with job.history.open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def assert_same_model(a: TrainingJob, b: TrainingJob) -> None:
    one, two = load_file(a.model), load_file(b.model)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert a.history.read_text() == b.history.read_text()


def differ(a: TrainingJob, b: TrainingJob) -> bool:
    one, two = load_file(a.model), load_file(b.model)
    return any(not torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> list[TrainingJob]:
    return []


@pytest.fixture
def unbroken(finished: list[TrainingJob], training_job: Callable[..., TrainingJob]) -> TrainingJob:
    """A finished training of LONGER, for comparison; trained once."""
    if not finished:
        finished.append(training_job("unbroken", **LONGER))
        train(finished[0])
    return finished[0]


@pytest.fixture
def at_step(monkeypatch) -> Callable[[int, Callable[[], None]], None]:
    """Do something after the given number of steps, counted over the rest of the test."""

    def install(count: int, action: Callable[[], None]) -> None:
        original, done = Trainer.step, 0

        def step(self, positions):
            nonlocal done
            loss = original(self, positions)
            done += 1
            if done == count:
                action()
            return loss

        monkeypatch.setattr(Trainer, "step", step)

    return install


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the package catches it."""


def kill() -> None:
    raise Killed


def test_training_lowers_the_loss(training_job):
    job = training_job(epochs=6, batch_size=6)
    train(job)
    losses = [row["loss"] for row in history(job)]
    assert losses[-1] < 0.7 * losses[0]


def test_one_step_lowers_the_loss_of_its_batch(training_job):
    trainer = Trainer(load_inputs(training_job(fmm=False, learning_rate=1e-4, batch_size=6)))
    trainer.prepare_features()
    positions = torch.arange(6)
    first, second = (trainer.step(positions).item() for _ in range(2))
    assert second < first


def test_the_model_describes_itself(training_job):
    job = training_job(seed=5, epochs=2)
    train(job)
    said = read_training(job.model)
    assert (said.dataset, said.category, said.backbone, said.seed) == ("demo", "bolt", "demo_resnet18", 5)
    assert said.recipe == job.recipe
    assert said.data_sha256 == sha256_file(job.index)
    assert said.teacher_sha256 == sha256_file(job.teacher)
    assert said.identity == job.stored.digest
    assert (said.epochs, said.images) == (2, 6)
    assert not (job.stored.folder / "last.pt").exists()


def test_a_seed_decides_the_weights(training_job):
    jobs = [training_job(name, seed=seed) for name, seed in (("one", 0), ("again", 0), ("other", 1))]
    for job in jobs:
        train(job)
    assert_same_model(jobs[0], jobs[1])
    assert differ(jobs[0], jobs[2])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_kept_features_change_nothing(training_job, precision):
    kept = training_job("kept", precision=precision, batch_size=4)
    recomputed = training_job("recomputed", precision=precision, batch_size=4, cache_gb=0)
    train(kept)
    train(recomputed)
    assert_same_model(kept, recomputed)


def test_features_are_kept_only_within_the_budget(training_job):
    job = training_job()
    teacher, _ = load_teacher(job.teacher)
    images = torch.from_numpy(load_train(Index.read(job.index), job.data, 32).images)
    size = 6 * sum(feature.nbytes for feature in teacher(images[:1]))
    assert FeatureSource(teacher, images, "fp32", 2, size / 1e9).cache is not None
    assert FeatureSource(teacher, images, "fp32", 2, (size - 1) / 1e9).cache is None


# 4 images to train on make 2 steps an epoch, so these are the first step, the ends of epochs and places between.
@pytest.mark.parametrize("step", [1, 2, 5, 8, 11, 12])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stopped_training_ends_as_an_unbroken_one(training_job, unbroken, at_step, signals_heard, step, number):
    job = training_job("stopped", **LONGER)
    at_step(step, lambda: os.kill(os.getpid(), number))
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=f"{number.name}.*goes on from the last saved state") as interruption:
        train(job)
    assert interruption.value.exit_code == 128 + number
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert not job.model.exists()
    assert (job.stored.folder / "last.pt").exists()
    train(job)
    assert_same_model(job, unbroken)
    assert not (job.stored.folder / "last.pt").exists()


def test_a_killed_training_ends_as_an_unbroken_one(training_job, unbroken, at_step):
    """Killed three times; a state is saved at every step."""
    job = training_job("killed", state_minutes=0, **LONGER)
    for steps in (2, 4, 5):  # 12 in all; that of the kill itself is lost
        at_step(steps, kill)
        with pytest.raises(Killed):
            train(job)
    assert not job.model.exists()
    train(job)
    assert_same_model(job, unbroken)


def test_what_a_kill_leaves_in_the_state_folder_does_no_harm(training_job, unbroken, at_step):
    job = training_job("killed", state_minutes=0, **LONGER)
    at_step(5, kill)
    with pytest.raises(Killed):
        train(job)
    (job.stored.folder / ".last.12345.tmp.pt").write_bytes(b"half a state")
    train(job)
    assert_same_model(job, unbroken)
    assert not (job.stored.folder / "last.pt").exists()


@pytest.mark.parametrize("damage", ["truncate", "empty", "garbage", "remove"])
def test_a_torn_state_falls_back_to_the_one_before(training_job, unbroken, at_step, damage, caplog):
    job = training_job("torn", state_minutes=0, **LONGER)
    at_step(7, kill)
    with pytest.raises(Killed):
        train(job)
    last = job.stored.folder / "last.pt"
    content = last.read_bytes()
    if damage == "remove":  # killed between two renames
        last.unlink()
    else:
        last.write_bytes({"truncate": content[:-500], "empty": b"", "garbage": b"\x80" * 900}[damage])
    with caplog.at_level("INFO"):
        train(job)
    assert "Continuing at epoch 3, step 1." in caplog.text
    assert_same_model(job, unbroken)


def test_two_torn_states_start_anew(training_job, unbroken, at_step):
    job = training_job("torn", state_minutes=0, **LONGER)
    at_step(7, kill)
    with pytest.raises(Killed):
        train(job)
    for name in ("last.pt", "previous.pt"):
        (job.stored.folder / name).write_bytes(b"")
    train(job)
    assert_same_model(job, unbroken)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")],
)
def test_a_state_that_does_not_fit_into_memory_is_kept(tmp_path, monkeypatch, error):
    states = StateFolder(tmp_path, 60)
    states.save(dict.fromkeys(CONTENT))
    whole = states.last.read_bytes()

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(MaskrdError, match=r"last\.pt: there is no memory to read it"):
        states.load()
    assert states.last.read_bytes() == whole


def test_a_state_that_the_disk_or_the_permissions_hide_is_kept(tmp_path, monkeypatch):
    states = StateFolder(tmp_path, 60)
    states.save(dict.fromkeys(CONTENT))
    whole = states.last.read_bytes()

    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(states.last))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", refuse)
        patch.setattr(Path, "open", refuse)
        with pytest.raises(PermissionError):
            states.load()
    assert states.last.read_bytes() == whole
    states.last.write_bytes(whole[:-9])
    assert states.load() is None
    assert (tmp_path / "unreadable.pt").read_bytes() == whole[:-9]


def other_recipe(job: TrainingJob) -> TrainingJob:
    return replace(job, recipe=job.recipe.model_copy(update={"learning_rate": 0.01}))


def other_seed(job: TrainingJob) -> TrainingJob:
    return replace(job, seed=1)


def other_data(job: TrainingJob) -> TrainingJob:
    index = Index.read(job.index)
    changed = job.model.parent / "index.json"
    replace(index, train=index.train[:-1]).write(changed)
    return replace(job, index=changed)


def other_teacher(job: TrainingJob) -> TrainingJob:
    """The same weights under another name: a teacher is known by its digest."""
    with safe_open(job.teacher, framework="pt") as file:
        metadata = file.metadata() | {"note": "another file"}
    changed = job.model.parent / "teacher.safetensors"
    save_file(load_file(job.teacher), changed, metadata=metadata)
    return replace(job, teacher=changed)


@pytest.mark.parametrize("change", [other_recipe, other_seed, other_data, other_teacher])
def test_another_training_leaves_a_state_alone(training_job, at_step, change, caplog):
    job = training_job("job")
    at_step(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        train(job)
    changed = change(job)
    train(changed)
    fresh = replace(changed, model=job.model.parent / "fresh/model.safetensors", store=job.model.parent / "fresh/store")
    train(fresh)
    assert_same_model(changed, fresh)
    with caplog.at_level("INFO"):
        train(job)
    assert "Continuing at epoch 1, step 3." in caplog.text


def test_nan_stops_and_keeps_the_last_good_state(training_job, monkeypatch):
    job = training_job("nan", state_minutes=0)
    original, steps = Trainer.step, 0

    def step(self, positions):
        nonlocal steps
        steps += 1
        return original(self, positions) * (float("nan") if steps == 5 else 1)

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(MaskrdError, match=r"loss is nan in epoch 2.*Lower learning_rate.*starts from the beginning"):
        train(job)
    assert not job.model.exists()
    state = torch.load(job.stored.folder / "last.pt", weights_only=True)
    assert (state["progress"]["epoch"], state["progress"]["step"]) == (1, 1)
    assert all(value.isfinite().all() for value in state["weights"].values())


def test_nan_on_held_out_images_stops_as_well(training_job, monkeypatch):
    job = training_job("nan", validation_fraction=0.25, checkpoint="best_validation")
    monkeypatch.setattr(MaskedReverseDistillation, "validation_loss", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(MaskrdError, match=r"loss is nan in epoch 1"):
        train(job)
    assert not job.model.exists()


def test_others_may_read_a_model(training_job):
    job = training_job("shared")
    train(job)
    assert job.model.stat().st_mode == job.history.stat().st_mode


def test_seconds_outlive_a_kill(training_job, at_step):
    job = training_job("killed", epochs=2, state_minutes=0)

    def kill_slowly() -> None:
        time.sleep(1)

    at_step(2, kill_slowly)
    at_step(3, kill)
    with pytest.raises(Killed):
        train(job)
    train(job)
    assert read_training(job.model).seconds >= 1


def test_a_hang_up_that_nohup_ignores_stays_ignored(training_job, at_step):
    job = training_job("nohup")
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        at_step(2, lambda: os.kill(os.getpid(), signal.SIGHUP))
        train(job)
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert job.model.exists()


def test_seconds_count_what_methods_do_beside_their_steps(training_job, monkeypatch):
    job = training_job("slow", epochs=2, validation_fraction=0.25)
    validate = Trainer.validate
    monkeypatch.setattr(Trainer, "validate", lambda *given: time.sleep(0.5) or validate(*given))
    monkeypatch.setattr(MaskedReverseDistillation, "fit_teacher", lambda *_: time.sleep(0.5))
    train(job)
    assert read_training(job.model).seconds >= 1.5


def test_a_diverging_training_stops_with_a_message(training_job):
    job = training_job("diverging", learning_rate=1e30, epochs=10)
    with pytest.raises(MaskrdError, match=r"The loss is (nan|inf) in epoch \d+"):
        train(job)
    assert not job.model.exists()
    assert not job.history.exists()


@pytest.fixture
def full_disk():
    """From here on no file can grow beyond some kilobytes, as on a full disk; the fixture's value frees it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))

    def free() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    yield free
    free()


def test_a_full_disk_is_told_and_leaves_the_state_before(training_job, unbroken, at_step, request):
    job = training_job("full", state_minutes=0, **LONGER)
    at_step(4, lambda: request.getfixturevalue("full_disk"))
    with pytest.raises(MaskrdError, match=r"the training state can't be saved"):
        train(job)
    request.getfixturevalue("full_disk")()
    assert sorted(path.name for path in job.stored.folder.glob("*.pt")) == ["last.pt", "previous.pt"]
    train(job)
    assert_same_model(job, unbroken)


def test_a_full_disk_at_the_end_is_told_and_leaves_no_half_model(training_job, unbroken, monkeypatch, request):
    job = training_job("full", **LONGER)
    original = training.write
    monkeypatch.setattr(training, "write", lambda *given: request.getfixturevalue("full_disk") and original(*given))
    with pytest.raises(MaskrdError, match=r"model\.safetensors: can't be written.*Check the free space"):
        train(job)
    assert not job.model.exists()
    assert not job.stored.model.exists()
    monkeypatch.undo()
    request.getfixturevalue("full_disk")()
    train(job)
    assert_same_model(job, unbroken)


def test_the_command_line_exits_as_stopped_by_its_signal(training_job, at_step):
    job = training_job(epochs=2)
    files = {"index": job.index, "data": job.data, "teacher": job.teacher, "model": job.model}
    options = {**files, "history": job.history, "store": job.store, "recipe": job.recipe.model_dump_json()}
    command = ["train", "--device", "cpu", *(f"--{key}={value}" for key, value in options.items())]
    at_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert CliRunner().invoke(app, command).exit_code == 128 + signal.SIGTERM
    assert CliRunner().invoke(app, command).exit_code == 0
    assert job.model.exists()


def test_patience_stops_early(training_job, monkeypatch):
    losses = iter([3.0, 2.0, 2.5, 2.0, 1.0, 0.5])
    monkeypatch.setattr(Trainer, "validate", lambda self: next(losses))
    job = training_job(epochs=20, validation_fraction=0.34, patience=2, checkpoint="best_validation")
    train(job)
    assert [row["validation_loss"] for row in history(job)] == [3.0, 2.0, 2.5, 2.0]
    assert (read_training(job.model).epochs, read_training(job.model).best_epoch) == (4, 2)


def test_patience_counts_on_after_a_stop(training_job, monkeypatch, at_step):
    monkeypatch.setattr(Trainer, "validate", lambda self: 1.0 + self.progress.epoch)
    job = training_job(epochs=20, validation_fraction=0.34, patience=4)
    at_step(7, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        train(job)
    train(job)
    assert len(history(job)) == 5


def test_the_best_epoch_is_the_one_written(training_job, monkeypatch):
    losses = iter([2.0, 1.0, 3.0])
    monkeypatch.setattr(Trainer, "validate", lambda self: next(losses))
    best = training_job("best", epochs=3, validation_fraction=0.34, checkpoint="best_validation")
    train(best)
    monkeypatch.setattr(Trainer, "validate", lambda self: 0.0)
    two = training_job("two", epochs=2, validation_fraction=0.34)
    train(two)
    assert not differ(best, two)


def test_the_best_epoch_survives_a_stop(training_job, monkeypatch, at_step):
    monkeypatch.setattr(Trainer, "validate", lambda self: 1.0 + self.progress.epoch)
    settings = {"epochs": 4, "validation_fraction": 0.34, "checkpoint": "best_validation"}
    unbroken, stopped = training_job("whole", **settings), training_job("stopped", **settings)
    train(unbroken)
    at_step(5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        train(stopped)
    train(stopped)
    assert read_training(stopped.model).best_epoch == 1
    assert_same_model(stopped, unbroken)


def test_every_epoch_has_its_own_order_and_every_step_its_own_masks(training_job, monkeypatch):
    orders, seeds, original = [], [], Trainer.step

    def step(self, positions):
        orders.append(positions.tolist())
        loss = original(self, positions)
        seeds.append(torch.initial_seed())
        return loss

    monkeypatch.setattr(Trainer, "step", step)
    train(training_job(epochs=3))
    epochs = [tuple(position for part in orders[3 * k : 3 * k + 3] for position in part) for k in range(3)]
    assert len(set(epochs)) == 3
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len(set(seeds)) == len(seeds) == 9


def test_validation_never_overlaps_training():
    for count in range(4, 60):
        kept, held_out = split_validation(count, 0.3, seed=1)
        assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(count))
        assert len(held_out) == round(0.3 * count)
    one, other = (split_validation(50, 0.3, seed)[1].tolist() for seed in (1, 2))
    assert one != other


@pytest.mark.parametrize(("count", "fraction"), [(6, 0.01), (6, 0.9), (2, 0.5)])
def test_a_fraction_that_leaves_nothing_is_refused(count, fraction):
    with pytest.raises(MaskrdError, match="validation_fraction"):
        split_validation(count, fraction, seed=0)


def test_held_out_images_are_never_trained_on(training_job, monkeypatch):
    seen, original = set(), Trainer.step

    def step(self, positions):
        seen.update(positions.tolist())
        return original(self, positions)

    monkeypatch.setattr(Trainer, "step", step)
    job = training_job(**LONGER)
    train(job)
    kept, held_out = split_validation(6, LONGER["validation_fraction"], job.seed)
    assert seen == set(kept.tolist())
    assert len(held_out) == 2


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(6, 2, [2, 2, 2]), (7, 3, [3, 4]), (8, 3, [3, 3, 2]), (5, 8, [5]), (3, 2, [3]), (33, 16, [16, 17])],
)
def test_a_last_batch_of_one_image_joins_its_neighbour(count, size, expected):
    order = torch.randperm(count)
    parts = batches(order, size)
    assert [len(part) for part in parts] == expected
    assert torch.equal(torch.cat(parts), order)


def test_states_are_saved_at_intervals(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr("maskrd.engine.state.time.monotonic", lambda: now)
    states = StateFolder(tmp_path / "state", interval=60)
    assert not states.due()
    now = 160.0
    assert states.due()
    states.save({})
    assert not states.due()
