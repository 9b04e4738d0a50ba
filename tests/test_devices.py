"""Jobs on several GPUs: each gets a slot, on the least busy card, and a death frees it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from maskrd import devices, runtime
from maskrd.devices import claim_slot

CARDS = ["GPU-a", "GPU-b"]
# Stands for a job: claims, says which card, keeps it until its standard input ends.
JOB = """
import sys
from collections.abc import Callable
from pathlib import Path
from maskrd.devices import claim_slot
position, lock = claim_slot(sys.argv[2].split(","), int(sys.argv[3]), Path(sys.argv[1]))
print(position, flush=True)
sys.stdin.read()
"""


def start_job(folder: Path, jobs: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", JOB, str(folder), ",".join(CARDS), str(jobs)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


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
        monkeypatch.setattr(runtime, "lock_folder", lambda: tmp_path / "locks")
        monkeypatch.setattr(runtime, "_claimed", [])
        return chosen

    return install


def test_without_a_gpu_nothing_is_locked(cards, tmp_path):
    cards(0)
    assert runtime.choose_device("auto", gpu_jobs=4) == torch.device("cpu")
    assert not (tmp_path / "locks").exists()


def test_a_single_gpu_is_shared_without_locks(cards, tmp_path):
    cards(1)
    assert runtime.choose_device("auto") == runtime.choose_device("cuda") == torch.device("cuda")
    assert not (tmp_path / "locks").exists()


def test_cpu_is_cpu_where_there_are_gpus(cards):
    cards(2)
    assert runtime.choose_device("cpu", gpu_jobs=2) == torch.device("cpu")


def test_of_several_gpus_each_job_takes_another(cards):
    chosen = cards(3)
    taken, claims = [], []
    for _ in range(3):
        taken.append(runtime.choose_device("auto", gpu_jobs=3))
        claims += runtime._claimed  # as long as a process holds them
        runtime._claimed.clear()
    assert sorted(device.index for device in taken) == [0, 1, 2]
    assert chosen == [device.index for device in taken]


def test_a_job_stays_on_its_card(cards):
    """Measuring speeds loads several models: with a slot for each, it would wait for itself."""
    chosen = cards(2)
    assert len({runtime.choose_device("auto", gpu_jobs=2) for _ in range(5)}) == 1
    assert len(chosen) == 1
