"""`maskrd plan`: the bill for the terminal."""

from collections.abc import Iterator

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from maskrd.config.experiment import Experiment
from maskrd.config.settings import Model
from maskrd.engine.machine import Machine, describe
from maskrd.inspection.bill import Network, Plan
from maskrd.inspection.timing import Timing, measure, measure_start

CONTEXT_BYTES = 0.6e9  # memory of a card that CUDA itself needs in each process


def overview(experiment: Experiment, machine: Machine, cache_gb: float) -> Group:
    """The plan for the terminal. Counts FLOPs, then times each network for some seconds."""
    plan = Plan(experiment, cache_gb)
    timings, start = measure_all(plan, machine), measure_start()
    table = Table(title="What the tables and figures cost")
    table.add_column("")
    for name in ("models", "images seen", "steps", "PFLOP", "hours"):
        table.add_column(name, justify="right")

    def add_row(title: str, models: list[Model]) -> None:
        bill = plan.bill(models)
        counts = [f"{value:,}" for value in (bill.models, bill.images, bill.steps)]
        hours = plan.seconds(models, timings, start) / 3600
        table.add_row(title, *counts, _short(bill.flops / 1e15), _short(hours))

    for name, models in plan.reports.items():
        add_row(name, models)
    table.add_section()
    add_row("all, each model once", plan.models)
    remarks = [*_time_remarks(timings, start, machine), *_size_remarks(plan), *_card_remarks(plan, machine.claim())]
    return Group(table, *(Text(line) for line in remarks))


def measure_all(plan: Plan, machine: Machine) -> dict[Network, Timing]:
    """The timing of each network that the plan has."""
    networks = tqdm(plan.networks().items(), unit="network", desc="timing", dynamic_ncols=True)
    return {network: measure(*plan.settings(model), model.backbone, machine) for network, model in networks}


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _time_remarks(timings: dict[Network, Timing], start: float, machine: Machine) -> Iterator[str]:
    device = machine.claim()
    name = describe(device)["device"] + (f", threads {machine.threads}" if device.type == "cpu" else "")
    yield (
        f"Hours: one job at a time on {name}. Each network was timed just now; other programs may have slowed it. "
        f"Included are {start:.1f} s for the start of each training and each test. Not included are decoding images "
        "and computing metrics."
    )
    for network, timing in timings.items():
        step = timing.image * network.batch_size + timing.update
        yield (
            f"  {network.method}, {network.backbone}, {network.size} px, {network.precision}: {step:.3g} s for a step "
            f"of {network.batch_size} images, {timing.test:.2g} s for testing one"
        )


def _size_remarks(plan: Plan) -> Iterator[str]:
    disk = {name: f"{size / 1e9:,.1f} GB {name}" for name, size in plan.disk_bytes().items()}
    yield f"Disk: {', '.join(disk.values())}."
    memory = plan.memory_bytes()
    if memory:
        largest = max(memory, key=memory.__getitem__)
        size = f"{memory[largest] / 1e9:,.1f} GB"
        yield f"Memory: up to {size} in a training ({largest.path}, fp32), and about 0.7 GB for torch."
    if plan.uncounted:
        yield f"Not counted, because they have no index yet: {', '.join(plan.uncounted)}."


def _card_remarks(plan: Plan, device: torch.device) -> Iterator[str]:
    memory = plan.memory_bytes()
    if device.type != "cuda" or not memory:
        return
    torch.cuda.empty_cache()  # of the networks that were timed
    free, total = torch.cuda.mem_get_info(device)
    at_a_time = int(free / (max(memory.values()) + CONTEXT_BYTES))
    yield (
        f"GPU: {free / 1e9:.1f} of {total / 1e9:.1f} GB are free. With kept features, the largest training fits "
        f"{at_a_time} times (snakemake --resources gpu={max(1, at_a_time)})."
    )
