"""Magnetic Tile Defects (Huang et al. 2020): one category, `tile`.

MT_Free holds the images without defects, and five other folders those with defects. Each image `Imgs/<name>.jpg` has
its mask beside it, `<name>.png`. The authors give no split for anomaly detection. Ours is fixed: all defective images
are tested, and the fifth of MT_Free that mtd_test_free.txt names.
"""

from importlib.resources import files
from pathlib import Path

from maskrd.data.description import Counts, KnownDataset, Layout, Listing
from maskrd.data.index_file import Entry
from maskrd.errors import MaskrdError

CATEGORIES = ("tile",)
FREE = "MT_Free"
DEFECTS = ("blowhole", "break", "crack", "fray", "uneven")


def list_tiles(dataset: str, category: str, root: Path, threads: int) -> Listing:
    """Training and test entries, relative to `root`.

    The folder says whether an image is defective: the masks of four Uneven images are empty, and a defect of a few
    pixels may vanish when its mask is resized.
    Raises MaskrdError with the name of what is missing.
    """
    from maskrd.data.images import check_entries

    free, chosen = image_names(dataset, root, FREE), free_test_names()
    absent = sorted(chosen - {Path(name).name for name in free})
    if absent:
        raise MaskrdError(
            f"{root / FREE / 'Imgs'}: {len(absent)} of the {len(chosen)} normal test images are missing "
            f"({', '.join(absent[:3])}, ...). Restore them, because the split is fixed."
        )
    train = [Entry(name) for name in free if Path(name).name not in chosen]
    test = [Entry(name) for name in free if Path(name).name in chosen]
    for defect in DEFECTS:
        names = image_names(dataset, root, f"MT_{defect.capitalize()}")
        test += [Entry(name, defect, mask_name(root, name)) for name in names]
    return Listing(train, test, check_entries(root, [*train, *test], threads))


def free_test_names() -> frozenset[str]:
    lines = files("maskrd.data").joinpath("mtd_test_free.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


def image_names(dataset: str, root: Path, folder: str) -> list[str]:
    images = root / folder / "Imgs"
    if not images.is_dir():
        raise MaskrdError(
            f"{images}: missing. The folder datasets.{dataset}.path must hold {FREE}/Imgs and, for each of the "
            f"defects {', '.join(DEFECTS)}, MT_<Defect>/Imgs. Correct the path."
        )
    return sorted(path.relative_to(root).as_posix() for path in images.glob("[!.]*.jpg"))  # macOS writes ._x.jpg


def mask_name(root: Path, image: str) -> str:
    mask = Path(image).with_suffix(".png")
    if not (root / mask).is_file():
        raise MaskrdError(f"{root / mask}: the mask of {Path(image).name} is missing. Restore it.")
    return mask.as_posix()


DATASET = KnownDataset(
    title="Magnetic tile defects",
    layout=Layout(
        name="mtd",
        list_images=list_tiles,
        find_categories=lambda root: CATEGORIES if (root / FREE).is_dir() else (),
        categories=CATEGORIES,
    ),
    counts={"tile": Counts(762, 582)},  # 1,344 images, of which a fifth of the 952 normal ones is tested
    downloaded=True,
)
