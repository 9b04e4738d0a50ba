"""The device of a job, its precision and its provenance."""

import platform
from contextlib import AbstractContextManager
from importlib.metadata import version

import torch

from maskrd.errors import MaskrdError


def choose_device(wanted: str) -> torch.device:
    """`auto` takes a GPU where there is one. Raises MaskrdError where `cuda` isn't to be had."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise MaskrdError("device: cuda, but torch sees no GPU. Set device: auto or cpu, or check the driver.")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def configure(device: torch.device, threads: int) -> None:
    """Take as many cores as Snakemake gave, and the same kernels in every run."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32
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


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def describe(device: torch.device) -> dict[str, str]:
    """What ran a job: for provenance in metrics.json."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"
    return {
        "device": name,
        "python": platform.python_version(),
        "maskrd": version("maskrd"),
        "torch": torch.__version__,
    }
