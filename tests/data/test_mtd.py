"""Magnetic Tile Defects: the fixed split, labels from folders, empty masks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrd.data import mtd
from maskrd.data.index_file import Index
from maskrd.data.indexing import build_index
from maskrd.data.samples import load_test, load_train
from maskrd.errors import MaskrdError

REAL = Path(__file__).parents[2] / "../shared/data/mtd"


def write_tile(root: Path, folder: str, name: str, marked: bool) -> None:
    images = root / folder / "Imgs"
    images.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 12), 90, np.uint8)).save(images / f"{name}.jpg")
    mask = np.zeros((20, 12), np.uint8)
    mask[5:10, 3:9] = 255 * marked
    Image.fromarray(mask).save(images / f"{name}.png")


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    for name in mtd.free_test_names():
        write_tile(tmp_path, "MT_Free", Path(name).stem, marked=False)
    for number in range(3):
        write_tile(tmp_path, "MT_Free", f"train{number}", marked=False)
    for defect in mtd.DEFECTS:
        write_tile(tmp_path, f"MT_{defect.capitalize()}", "a", marked=True)
        write_tile(tmp_path, f"MT_{defect.capitalize()}", "b", marked=defect != "uneven")
    return tmp_path


def test_split_and_labels(tiles: Path, tmp_path: Path) -> None:
    build_index("mtd", "tile", tiles).write(tmp_path / "tile.json")
    index = Index.read(tmp_path / "tile.json")
    (tiles / "MT_Free/Imgs/._train0.jpg").write_bytes(b"macOS")
    assert build_index("mtd", "tile", tiles) == index
    assert [entry.image for entry in index.train] == [f"MT_Free/Imgs/train{number}.jpg" for number in range(3)]
    good = {Path(entry.image).name for entry in index.test if entry.defect == "good"}
    assert good == mtd.free_test_names()
    defects = [entry.defect for entry in index.test if entry.defect != "good"]
    assert defects == [defect for defect in mtd.DEFECTS for _ in range(2)]


def test_empty_mask_is_still_a_defect(tiles: Path) -> None:
    index = build_index("mtd", "tile", tiles)
    samples = load_test(index, tiles, 32)
    position = [entry.image for entry in samples.entries].index("MT_Uneven/Imgs/b.jpg")
    assert samples.defective[position]
    assert not samples.masks[position].any()
    assert samples.masks[position - 1].any()
    assert samples.defective.sum() == 10
    assert load_train(index, tiles, 32).images.shape == (3, 3, 32, 32)


def test_missing_files_are_named(tiles: Path) -> None:
    (tiles / "MT_Crack/Imgs/a.png").unlink()
    with pytest.raises(MaskrdError, match=r"MT_Crack/Imgs/a\.png"):
        build_index("mtd", "tile", tiles)
    gone = min(mtd.free_test_names())
    (tiles / "MT_Free/Imgs" / gone).unlink()
    with pytest.raises(MaskrdError, match=f"1 of the 190 .*{gone}"):
        build_index("mtd", "tile", tiles)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MaskrdError, match=r"MT_Free.*missing.*datasets\.mtd\.path"):
        build_index("mtd", "tile", tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/mtd is not there")
def test_the_published_dataset() -> None:
    listing = mtd.list_tiles("mtd", "tile", REAL, threads=2)
    train, test = listing.train, listing.test
    assert (len(train), len(test)) == (762, 190 + 392)
    counts = {defect: sum(entry.defect == defect for entry in test) for defect in mtd.DEFECTS}
    assert counts == {"blowhole": 115, "break": 85, "crack": 57, "fray": 32, "uneven": 103}
    assert not {entry.image for entry in train} & {entry.image for entry in test}
