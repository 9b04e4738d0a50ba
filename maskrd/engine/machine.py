"""The machine that a job runs on: its device, threads and precision, and how it is recorded."""

import logging
import math
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock

import maskrd
from maskrd.engine.gpu_slots import claim_slot, lock_folder
from maskrd.errors import MaskrdError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """The GPU that this process uses, the lock of its slot (held until the end), and the number of visible GPUs."""

    device: torch.device
    lock: FileLock
    gpus: int


_claimed: list[Claim] = []  # at most one
# What libraries say when a card is full. Only torch's own allocator raises a class for it: a card may be too full for
# a context, and cuBLAS and cuDNN then say no more than that they couldn't be set up.
FULL = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "OUT_OF_DEVICE_MEMORY",
)


@dataclass(frozen=True)
class Machine:
    """What a job may use: a device, CPU threads, and how many jobs share the visible GPUs.

    `device`: `auto` is an NVIDIA GPU if there is one, otherwise the CPU. `patience`: seconds to wait for a free slot of
    a GPU; None waits without limit. `cuda_graphs`: False launches the kernels of a step one by one, also where a graph
    could (maskrd/engine/cuda_graph.py).
    """

    device: str = "auto"
    threads: int = 1
    gpu_jobs: int = 1
    patience: float | None = None
    cuda_graphs: bool = True

    def claim(self) -> torch.device:
        """The device of this process, with torch set up for it. Every call gives the same device.

        Raises MaskrdError for a device that torch doesn't see, and if no slot becomes free in time.
        """
        device = choose_device(self.device, self.gpu_jobs, self.patience)
        configure(device, self.threads)
        return device

    def feature_gb(self, wanted: float, device: torch.device) -> float:
        """How many GB of a GPU's memory this job may fill with kept features: at most `wanted`.

        It is half of the job's share of the free memory; a step needs the other half. Call it when the networks and
        images are on the card.
        """
        if device.type != "cuda":
            return wanted
        at_a_time = max(1, math.ceil(self.gpu_jobs / gpu_count()))
        return min(wanted, torch.cuda.mem_get_info(device)[0] / at_a_time / 2 / 1e9)


def mig_slices() -> list[str]:
    """The MIG slices that this process may choose from: CUDA shows it only the first of those it is given."""
    return [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.startswith("MIG-")]


def gpu_count() -> int:
    """How many GPUs or MIG slices the jobs share."""
    return _claimed[0].gpus if _claimed else torch.cuda.device_count()


def choose_device(wanted: str, gpu_jobs: int, patience: float | None = None) -> torch.device:
    """The device that `wanted` means. `auto` takes a GPU if there is one; of several, the least busy one."""
    if _claimed:
        return torch.device("cpu") if wanted == "cpu" else _claimed[0].device
    if wanted in ("auto", "cuda") and len(mig_slices()) > 1:
        claim_slice(gpu_jobs, patience)
        return torch.device("cuda")
    if wanted not in ("auto", "cpu") and not getattr(torch, wanted).is_available():
        raise MaskrdError(f"device: {wanted}, but torch sees no such device. Use auto or cpu, or check the driver.")
    if wanted == "auto" and not torch.cuda.is_available():
        say_that_there_is_no_gpu()
        return torch.device("cpu")
    if wanted not in ("auto", "cuda"):
        return torch.device(wanted)
    count = torch.cuda.device_count()
    if count == 1:  # nothing to choose; on a cluster the scheduler chose
        return torch.device("cuda")
    names = [str(torch.cuda.get_device_properties(k).uuid) for k in range(count)]
    position, lock = claim_slot(names, gpu_jobs, lock_folder(), patience)
    _claimed.append(Claim(torch.device("cuda", position), lock, count))
    torch.cuda.set_device(position)
    return torch.device("cuda", position)


def claim_slice(gpu_jobs: int, patience: float | None) -> None:
    """Take one of several MIG slices, before CUDA looks at the environment; it is cuda:0 then."""
    slices = mig_slices()
    position, lock = claim_slot(slices, gpu_jobs, lock_folder(), patience)
    os.environ["CUDA_VISIBLE_DEVICES"] = slices[position]
    _claimed.append(Claim(torch.device("cuda"), lock, len(slices)))


@cache
def say_that_there_is_no_gpu() -> None:
    """Log once in a process that no GPU is used, for users who have one."""
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    logger.info("device: auto finds no NVIDIA GPU (torch %s, %s), so the CPU is used.", torch.__version__, built)


def configure(device: torch.device, threads: int) -> None:
    """Use as many cores as Snakemake gave, and the same kernels in every run."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    if device.type == "cuda":  # TF32 where fp32 is asked for
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` becomes bf16 if the hardware computes it natively, otherwise fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    elif device.type == "xpu":
        native = torch.xpu.is_bf16_supported()
    elif device.type == "mps":
        native = False  # not before the second generation, and torch doesn't say which it is
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"


@contextmanager
def explain_out_of_memory(remedy: str) -> Iterator[None]:
    """Turn the error of a full GPU into a MaskrdError that ends with `remedy`. No setting is changed silently."""
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in FULL):
            raise
        reason = str(error).split(". ")[0]
        raise MaskrdError(
            f"The GPU is out of memory ({reason}). Let fewer jobs share it (snakemake --resources gpu=1){remedy}."
        ) from None


def synchronize(device: torch.device) -> None:
    """Wait for the GPU, which works on after a call has returned."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def describe(device: torch.device) -> dict[str, str | int]:
    """What ran a job, after `configure`: for provenance in metrics.json. On a GPU fp32 convolutions run in TF32.

    The threads and vector instructions of a CPU decide in which order it adds, and so the last digits of a step. So a
    seed gives the same model only on the same number of threads.
    """
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "maskrd": maskrd.__version__,
        "torch": torch.__version__,
    }


def device_name(device: torch.device) -> str:
    if device.type in ("cuda", "xpu"):
        return getattr(torch, device.type).get_device_name(device)
    if device.type == "mps":
        return f"Apple GPU ({platform.machine()})"
    return f"CPU ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"


def code_commit() -> str | None:
    """The git commit of the package, with "-dirty" if files differ from it; None where git can't tell.

    An installed copy has no commit: a repository around it is not its own.
    """
    folder = Path(maskrd.__file__).parent
    if not (folder.parent / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
