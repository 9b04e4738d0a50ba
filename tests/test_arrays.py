"""Damaged .npz files are refused by name."""

from pathlib import Path

import numpy as np
import pytest

from maskrd.arrays import Form, read_arrays
from maskrd.errors import MaskrdError

FORMS = {"maps": Form("f", 3), "low": Form("f", 0)}


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    path = tmp_path / "heatmaps.npz"
    np.savez_compressed(path, maps=np.zeros((4, 32, 32), np.float32), low=0.0)
    return path


def test_what_is_there_is_read(arrays: Path) -> None:
    assert set(read_arrays(arrays, FORMS, {"masks": Form("b", 3)})) == {"maps", "low"}


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated", "flipped"])
def test_damaged_files_are_refused(arrays: Path, damage: str) -> None:
    content = arrays.read_bytes()
    flipped = bytes(byte ^ 255 if 40 < place < 90 else byte for place, byte in enumerate(content))
    damaged = {"empty": b"", "garbage": b"\x80" * 99, "truncated": content[:-40], "flipped": flipped}
    arrays.write_bytes(damaged[damage])
    with pytest.raises(MaskrdError, match=r"heatmaps\.npz: not anomaly maps.*Delete it"):
        read_arrays(arrays, FORMS)


def test_a_missing_array_or_file_is_named(arrays: Path) -> None:
    with pytest.raises(MaskrdError, match=r"heatmaps\.npz.*high"):
        read_arrays(arrays, {"high": Form("f", 0)})
    with pytest.raises(MaskrdError, match=r"other\.npz: missing"):
        read_arrays(arrays.with_name("other.npz"), FORMS)
