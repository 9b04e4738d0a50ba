"""Magnetic Tile Defects (Huang et al. 2020): one category, `tile`.

MT_Free holds images without defects, five other folders those with; each image `Imgs/<name>.jpg` has its
mask beside it as `<name>.png`. The authors give no split for anomaly detection. Ours is fixed:
mtd_test_free.txt names the fifth of MT_Free that is tested, with all the defective images.
"""

from importlib.resources import files
from pathlib import Path

from maskrd.data.index import Entry
from maskrd.errors import MaskrdError

FREE = "MT_Free"
DEFECTS = ("blowhole", "break", "crack", "fray", "uneven")


def list_tiles(root: Path) -> tuple[list[Entry], list[Entry]]:
    """Training and test entries, relative to `root`.

    An image counts as defective by its folder: the masks of four Uneven images are empty, and a defect of a few
    pixels may vanish when its mask is resized.
    Raises MaskrdError naming what is missing.
    """
    free, chosen = image_names(root, FREE), free_test_names()
    absent = sorted(chosen - {Path(name).name for name in free})
    if absent:
        raise MaskrdError(
            f"{root / FREE / 'Imgs'}: {len(absent)} of the {len(chosen)} normal test images are missing "
            f"({', '.join(absent[:3])}, ...). Restore them: the split is fixed."
        )
    train = [Entry(name) for name in free if Path(name).name not in chosen]
    test = [Entry(name) for name in free if Path(name).name in chosen]
    for defect in DEFECTS:
        names = image_names(root, f"MT_{defect.capitalize()}")
        test += [Entry(name, defect, mask_name(root, name)) for name in names]
    return train, test


def free_test_names() -> frozenset[str]:
    lines = files("maskrd.data").joinpath("mtd_test_free.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


def image_names(root: Path, folder: str) -> list[str]:
    images = root / folder / "Imgs"
    if not images.is_dir():
        raise MaskrdError(
            f"{images}: missing. The folder datasets.mtd.path holds {FREE}/Imgs and, for each of the "
            f"defects {', '.join(DEFECTS)}, MT_<Defect>/Imgs."
        )
    return sorted(path.relative_to(root).as_posix() for path in images.glob("*.jpg"))


def mask_name(root: Path, image: str) -> str:
    mask = Path(image).with_suffix(".png")
    if not (root / mask).is_file():
        raise MaskrdError(f"{root / mask}: the mask of {Path(image).name} is missing. Restore it.")
    return mask.as_posix()
