"""Jobs on several GPUs: each gets a slot, on the least busy card, and a death frees it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maskrd.engine import gpu_slots as devices
from maskrd.engine import machine as runtime
from maskrd.engine.gpu_slots import claim_slot
from maskrd.engine.machine import Machine, explain_out_of_memory, resolve_precision
from maskrd.engine.training import train
from maskrd.errors import MaskrdError
from maskrd.methods.base import widest_float

CARDS = ["GPU-a", "GPU-b"]
# Stands for a job: claims, says which card, keeps it until its standard input ends.
JOB = """
import sys
from collections.abc import Callable
from pathlib import Path
from maskrd.engine.gpu_slots import claim_slot
position, lock = claim_slot(sys.argv[2].split(","), int(sys.argv[3]), Path(sys.argv[1]))
print(position, flush=True)
sys.stdin.read()
"""


def start_job(folder: Path, jobs: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", JOB, str(folder), ",".join(CARDS), str(jobs)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_user_without_a_name_has_a_folder_of_locks(monkeypatch):
    monkeypatch.setattr(devices.getpass, "getuser", lambda: pytest.fail("asked for a name"))
    assert str(os.getuid()) in devices.lock_folder().name


def test_jobs_spread_over_cards_before_they_share_one(tmp_path):
    claims = [claim_slot(CARDS, 4, tmp_path) for _ in range(4)]
    positions = [position for position, _ in claims]
    assert sorted(positions[:2]) == sorted(positions[2:]) == [0, 1]


def test_a_freed_card_is_taken_before_a_busy_one(tmp_path):
    claims = [claim_slot(CARDS, 4, tmp_path) for _ in range(4)]
    freed = claims[2][0]
    for position, lock in claims:
        if position == freed:
            lock.release()
    assert claim_slot(CARDS, 4, tmp_path)[0] == freed


@pytest.fixture
def while_waiting(monkeypatch):
    """Do something in place of the sleep between two tries."""

    def install(action: Callable[[], None]) -> None:
        monkeypatch.setattr(devices, "time", SimpleNamespace(sleep=lambda seconds: action()))

    return install


class Waits(Exception):
    pass


def give_up() -> None:
    raise Waits


@pytest.mark.parametrize(("jobs", "slots"), [(1, 2), (2, 2), (3, 4), (4, 4)])
def test_each_card_has_its_share_of_slots(tmp_path, while_waiting, jobs, slots):
    claims = [claim_slot(CARDS, jobs, tmp_path) for _ in range(slots)]
    assert [position for position, _ in claims].count(0) == slots / 2
    while_waiting(give_up)
    with pytest.raises(Waits):
        claim_slot(CARDS, jobs, tmp_path)


def test_a_waiting_job_goes_on_when_a_slot_is_freed(tmp_path, while_waiting, caplog):
    claims = [claim_slot(CARDS, 2, tmp_path) for _ in CARDS]
    while_waiting(claims[1][1].release)
    with caplog.at_level("INFO"):
        assert claim_slot(CARDS, 2, tmp_path)[0] == claims[1][0]
    assert "All 2 GPU slots are taken" in caplog.text


def test_a_killed_job_frees_its_card(tmp_path):
    jobs = [start_job(tmp_path, 2) for _ in CARDS]
    try:
        positions = [int(job.stdout.readline()) for job in jobs]
        assert sorted(positions) == [0, 1]
        jobs[0].kill()
        jobs[0].wait()
        assert claim_slot(CARDS, 2, tmp_path)[0] == positions[0]
    finally:
        for job in jobs:
            job.kill()
            job.communicate()


@pytest.fixture
def cards(monkeypatch, tmp_path):
    """Pretend to have so many GPUs; returns what torch was told to use."""
    chosen = []

    def install(count: int) -> list[int]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda k: SimpleNamespace(uuid=f"GPU-{k}"))
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        monkeypatch.setattr(runtime, "configure", lambda device, threads: None)  # would hold for later tests
        monkeypatch.setattr(runtime, "lock_folder", lambda: tmp_path / "locks")
        monkeypatch.setattr(runtime, "_claimed", [])
        return chosen

    return install


def test_without_a_gpu_nothing_is_locked(cards, tmp_path):
    cards(0)
    assert Machine("auto", gpu_jobs=4).claim() == torch.device("cpu")
    assert not (tmp_path / "locks").exists()


def test_a_single_gpu_is_shared_without_locks(cards, tmp_path):
    cards(1)
    assert Machine("auto").claim() == Machine("cuda").claim() == torch.device("cuda")
    assert not (tmp_path / "locks").exists()


def test_cpu_is_cpu_where_there_are_gpus(cards):
    cards(2)
    assert Machine("cpu", gpu_jobs=2).claim() == torch.device("cpu")


def test_of_several_gpus_each_job_takes_another(cards):
    chosen = cards(3)
    taken, claims = [], []
    for _ in range(3):
        taken.append(Machine("auto", gpu_jobs=3).claim())
        claims += runtime._claimed  # as long as a process holds them
        runtime._claimed.clear()
    assert sorted(device.index for device in taken) == [0, 1, 2]
    assert chosen == [device.index for device in taken]


def test_a_job_stays_on_its_card(cards):
    """Measuring speeds loads several models: with a slot for each, it would wait for itself."""
    chosen = cards(2)
    assert len({Machine("auto", gpu_jobs=2).claim() for _ in range(5)}) == 1
    assert len(chosen) == 1


def test_of_several_mig_slices_each_job_takes_its_own(cards, monkeypatch, tmp_path):
    """CUDA shows a process one slice, so it is chosen before CUDA starts."""
    taken = []
    for _ in range(2):
        cards(1)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-one,MIG-two")
        machine = Machine("auto", gpu_jobs=2)
        assert machine.claim() == machine.claim() == torch.device("cuda")
        taken.append((os.environ["CUDA_VISIBLE_DEVICES"], list(runtime._claimed)))
    assert {name for name, _ in taken} == {"MIG-one", "MIG-two"}


def test_kept_features_share_what_is_free_of_the_card(cards, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (24e9, 80e9))
    cards(1)
    device = torch.device("cuda")
    assert Machine("cuda", gpu_jobs=3).feature_gb(8, device) == pytest.approx(4)
    assert Machine("cuda", gpu_jobs=3).feature_gb(2, device) == 2
    cards(3)
    assert Machine("cuda", gpu_jobs=3).feature_gb(100, device) == pytest.approx(12)
    assert Machine("cpu", gpu_jobs=3).feature_gb(100, torch.device("cpu")) == 100


def test_auto_says_once_that_it_takes_the_cpu(cards, caplog):
    cards(0)
    runtime.say_that_there_is_no_gpu.cache_clear()
    with caplog.at_level("INFO"):
        Machine("auto").claim()
        Machine("auto").claim()
    assert caplog.text.count("so the CPU is used") == 1


def test_a_person_does_not_wait_for_ever(tmp_path, while_waiting):
    claims = [claim_slot(CARDS, 2, tmp_path) for _ in CARDS]
    while_waiting(lambda: None)
    with pytest.raises(MaskrdError, match="All 2 GPU slots have been taken for 6 s"):
        claim_slot(CARDS, 2, tmp_path, patience=5)
    assert len(claims) == 2


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.65 GiB",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "MPS backend out of memory (MPS allocated: 8.00 GB)",
        "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    ],
)
def test_a_full_card_is_told_from_other_errors(message):
    with pytest.raises(MaskrdError, match=r"out of memory .* batch_size"), explain_out_of_memory(", lower batch_size"):
        raise RuntimeError(message)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="mat1"), explain_out_of_memory(""):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize("owner", ["maskrd.engine.inputs.load_teacher", "maskrd.engine.model_file.save_file"])
def test_a_card_that_is_full_while_a_model_is_read_or_written(owner, training_job, monkeypatch):
    def full(*arguments: object, **options: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(owner, full)
    with pytest.raises(MaskrdError, match="The GPU is out of memory"):
        train(training_job(epochs=1))


@pytest.mark.parametrize("name", ["cuda", "mps", "xpu"])
def test_a_device_that_is_not_there_is_refused(cards, monkeypatch, name):
    cards(0)
    monkeypatch.setattr(getattr(torch, name), "is_available", lambda: False)
    with pytest.raises(MaskrdError, match=f"device: {name}, but torch sees no such device"):
        Machine(name).claim()


@pytest.mark.parametrize("name", ["mps", "xpu"])
def test_other_accelerators_are_taken_by_name(cards, monkeypatch, name):
    cards(0)
    monkeypatch.setattr(getattr(torch, name), "is_available", lambda: True)
    assert Machine(name).claim() == torch.device(name)
    assert Machine("auto").claim() == torch.device("cpu")


def test_apples_gpus_blur_in_single_precision():
    """They have no float64; the blur differs by rounding."""
    assert (widest_float(torch.device("mps")), widest_float(torch.device("cuda"))) == (torch.float32, torch.float64)
    assert resolve_precision("auto", torch.device("mps")) == "fp32"
