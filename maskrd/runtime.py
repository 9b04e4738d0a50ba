"""The device of a job, its precision and its provenance."""

import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from filelock import FileLock

from maskrd import __version__
from maskrd.devices import claim_slot, lock_folder
from maskrd.errors import MaskrdError

# The GPU that this process uses, and its slot there, held until the process ends: at most one.
_claimed: list[tuple[int, FileLock]] = []


def choose_device(wanted: str, gpu_jobs: int = 1) -> torch.device:
    """`auto` takes a GPU where there is one; where there are several, the least busy of them, the same in every call.

    `gpu_jobs` is how many jobs share the visible GPUs. Raises MaskrdError where `cuda` isn't to be had.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise MaskrdError("device: cuda, but torch sees no GPU. Set device: auto or cpu, or check the driver.")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if count == 1:  # nothing to choose; on a cluster the scheduler chose
        return torch.device("cuda")
    if _claimed:
        return torch.device("cuda", _claimed[0][0])
    names = [str(torch.cuda.get_device_properties(k).uuid) for k in range(count)]
    position, lock = claim_slot(names, gpu_jobs, lock_folder())
    _claimed.append((position, lock))
    torch.cuda.set_device(position)
    return torch.device("cuda", position)


def configure(device: torch.device, threads: int) -> None:
    """Take as many cores as Snakemake gave, and the same kernels in every run."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    if device.type == "cuda":  # TF32 where fp32 is asked for
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` becomes bf16 where the hardware says that it computes it natively, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"


@contextmanager
def explain_out_of_memory(remedy: str) -> Iterator[None]:
    """Turn a full GPU into a MaskrdError that ends with `remedy`; nothing is changed on the quiet."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).split(". ")[0]
        raise MaskrdError(
            f"The GPU is out of memory ({reason}). Let fewer jobs share it (snakemake --resources gpu=1){remedy}."
        ) from None


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def describe(device: torch.device) -> dict[str, str | int]:
    """What ran a job, after `configure`: for provenance in metrics.json. On a GPU fp32 convolutions run in TF32.

    Threads and vector instructions of a CPU decide in which order sums are taken, and so the last digits of a step:
    a seed repeats a model on the same number of threads.
    """
    name = f"CPU ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()})"
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "maskrd": __version__,
        "torch": torch.__version__,
    }
