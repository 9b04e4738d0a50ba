"""Steps as CUDA graphs: the bookkeeping with a stand-in, and equal weights on a real GPU."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from maskrd.engine.cuda_graph import WARM_UP, GraphedStep
from maskrd.engine.inputs import TrainingJob, load_inputs
from maskrd.engine.machine import Machine
from maskrd.engine.training import train
from maskrd.methods.base import Method
from tests.test_training import assert_same_model

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class Recording:
    """Stands for a CUDA graph: it calls again, into the memory of the first result."""

    pools: list[object] = []  # noqa: RUF012

    def __init__(self, call: Callable[[], Tensor], pool: object) -> None:
        self.call, self.result = call, torch.empty(())
        self.graph = SimpleNamespace(pool=lambda: "of the first")
        Recording.pools.append(pool)

    def replay(self) -> Tensor:
        return self.result.copy_(self.call())


def test_a_batch_size_is_captured_once_and_after_its_warm_up(monkeypatch):
    monkeypatch.setattr(Recording, "pools", [])
    taken = []
    step = GraphedStep(lambda positions: (taken.append(positions), positions.sum().float())[1], Recording)
    batches = [torch.tensor([number, 1]) for number in range(5)] + [torch.tensor([number]) for number in range(5)]
    losses = [step(batch) for batch in batches]
    assert [loss.item() for loss in losses] == [1, 2, 3, 4, 5, 0, 1, 2, 3, 4]  # no result is overwritten by a later one
    assert Recording.pools == [None, "of the first"]
    kept = [positions for positions in taken if all(positions is not batch for batch in batches)]
    assert len(kept) == 10 - 2 * WARM_UP
    assert len({positions.data_ptr() for positions in kept}) == 2  # a graph reads the same memory at every step


def test_there_are_no_graphs_on_a_cpu_or_of_a_method_that_allows_none(training_job):
    assert not load_inputs(training_job()).cuda_graphs
    assert not Method.capturable


def of_device(job: TrainingJob, device: str, **machine) -> TrainingJob:
    return replace(job, machine=Machine(device, **machine))


@on_a_gpu
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16", "cache_gb": 0},
        {"method": "maskrd", "validation_fraction": 0.4, "checkpoint": "best_validation"},
        {"method": "stpm", "optimizer": "sgd", "learning_rate": 0.1},
        {"method": "msfd", "optimizer": "sgd", "learning_rate": 0.1},
        {"method": "asymmetric", "teacher_norm": "moving_average"},
    ],
)
def test_a_graph_gives_the_weights_of_its_kernels(training_job, changes):
    changes = {"epochs": 6, "batch_size": 4, **changes}  # 6 images: batches of 4 and 2
    jobs = [
        of_device(training_job(name, **changes), "cuda", cuda_graphs=graphs)
        for name, graphs in (("one by one", False), ("graph", True))
    ]
    assert [load_inputs(job).cuda_graphs for job in jobs] == [False, True]
    for job in jobs:
        train(job)
    assert_same_model(*jobs)
