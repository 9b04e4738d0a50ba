"""Arrays in .npz files."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskrd.errors import MaskrdError


class Form(NamedTuple):
    """What an array must be: `kinds` as numpy's dtypes have them, and the number of its dimensions."""

    kinds: str
    dimensions: int


def read_arrays(
    path: Path, required: Mapping[str, Form], optional: Mapping[str, Form] | None = None
) -> dict[str, np.ndarray]:
    """The named arrays of a file, and those of `optional` that it has.

    Raises MaskrdError for a damaged file and for one of other content.
    """
    try:
        with np.load(path) as file:
            forms = {**required, **{name: form for name, form in (optional or {}).items() if name in file}}
            arrays = {name: file[name] for name in forms}
        for name, (kinds, dimensions) in forms.items():
            array = arrays[name]
            if array.dtype.kind not in kinds or array.ndim != dimensions:
                raise ValueError(f"{name} is of type {array.dtype} and shape {array.shape}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"{name} has values that aren't finite")
        return arrays
    except FileNotFoundError:
        raise MaskrdError(f"{path}: missing. Ask Snakemake for it.") from None
    except Exception as error:  # readers of zips and of numpy's headers raise nearly every type
        raise MaskrdError(f"{path}: not anomaly maps of this pipeline ({error}). Delete it to make it again.") from None
