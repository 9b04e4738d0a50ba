"""The layout of MVTec AD: a folder for each category with train/good, test/<defect> and ground_truth/<defect>."""

from collections.abc import Sequence
from pathlib import Path

from maskrd.data.changes import HIDDEN, IMAGE_SUFFIXES
from maskrd.data.description import Counts, KnownDataset, Layout, Listing
from maskrd.data.index_file import GOOD, Entry
from maskrd.errors import MaskrdError

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")  # JPEG would blur the edges of defects
IGNORED = frozenset({"thumbs.db", "desktop.ini"})


def list_folder(dataset: str, category: str, root: Path, threads: int) -> Listing:
    """The images of a category, from train/good, test/<defect> and ground_truth/<defect>.

    Raises MaskrdError with the name of what is missing or doesn't belong there.
    """
    from maskrd.data.images import check_entries

    folder = root / category
    if not root.is_dir():
        raise MaskrdError(
            f"datasets.{dataset}.path: the folder {root} does not exist. "
            "Correct the path, or set it to null to download the data. If they were downloaded before, remove "
            f"data/{dataset}.unpacked.json to unpack them again."
        )
    if not folder.is_dir():
        raise MaskrdError(
            f"datasets.{dataset}.categories: {category!r} has no folder in {root}. "
            f"Categories there: {', '.join(find_categories(root)) or 'none'}."
        )
    train = [Entry(name) for name in image_names(folder, f"train/{GOOD}")]
    test = []
    for defect in sorted(path.name for path in subfolder(folder, "test").iterdir() if path.is_dir()):
        if defect.startswith(HIDDEN):
            continue
        if defect != GOOD and defect.lower() == GOOD:
            raise MaskrdError(f"{folder / 'test' / defect}: would count as a defect type. Rename it to {GOOD}.")
        names = image_names(folder, f"test/{defect}")
        refuse_equal_stems(folder, names)
        for name in names:
            mask = None if defect == GOOD else find_mask(folder, defect, Path(name).stem)
            test.append(Entry(name, defect, mask))
    return Listing(train, test, check_entries(folder, [*train, *test], threads))


def subfolder(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_dir():
        raise MaskrdError(
            f"{path}: missing. A category needs train/good, test/good and test/<defect>, and for pixel metrics "
            "ground_truth/<defect>. Add the folder, or correct the path."
        )
    return path


def image_names(folder: Path, name: str) -> list[str]:
    """Paths, relative to `folder`, of the images in its subfolder `name`, sorted."""
    names = []
    for path in sorted(subfolder(folder, name).iterdir()):
        if path.name.startswith(".") or path.name.lower() in IGNORED:
            continue
        if not path.is_file():
            kind = "a folder among images" if path.is_dir() else "not a file, or a broken link"
            raise MaskrdError(f"{path}: {kind}. Move it elsewhere.")
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise MaskrdError(f"{path}: not an image ({', '.join(sorted(IMAGE_SUFFIXES))}). Move it elsewhere.")
        names.append(f"{name}/{path.name}")
    return names


def refuse_equal_stems(folder: Path, names: Sequence[str]) -> None:
    """Two test images such as 000.png and 000.jpg would share a mask and the name of an anomaly map."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(Path(name).stem, name)
        if other != name:
            raise MaskrdError(f"{folder / name}: has the name of {Path(other).name} but for the ending. Rename one.")


def find_mask(folder: Path, defect: str, stem: str) -> str | None:
    """The mask of a defective image. None if the category has no ground truth at all."""
    if not (folder / "ground_truth").is_dir():
        return None
    for suffix in MASK_SUFFIXES:
        for name in (f"ground_truth/{defect}/{stem}_mask{suffix}", f"ground_truth/{defect}/{stem}{suffix}"):
            if (folder / name).is_file():
                return name
    raise MaskrdError(
        f"{folder / 'ground_truth' / defect / f'{stem}_mask.png'}: the mask of test/{defect}/{stem} is missing. "
        "Restore it. Or remove the whole folder ground_truth; then there are no pixel metrics."
    )


def find_categories(root: Path) -> list[str]:
    """The categories in a folder: those with a folder train/good."""
    return sorted(path.parents[1].name for path in root.glob(f"[!.@]*/train/{GOOD}") if path.is_dir())


LAYOUT = Layout(name="mvtec", list_images=list_folder, find_categories=find_categories, folder_each=True)
DATASET = KnownDataset(
    title="MVTec AD",
    layout=LAYOUT,
    counts={  # P. Bergmann et al., IJCV 129, 2021
        "carpet": Counts(280, 117),
        "grid": Counts(264, 78),
        "leather": Counts(245, 124),
        "tile": Counts(230, 117),
        "wood": Counts(247, 79),
        "bottle": Counts(209, 83),
        "cable": Counts(224, 150),
        "capsule": Counts(219, 132),
        "hazelnut": Counts(391, 110),
        "metal_nut": Counts(220, 115),
        "pill": Counts(267, 167),
        "screw": Counts(320, 160),
        "toothbrush": Counts(60, 42),
        "transistor": Counts(213, 100),
        "zipper": Counts(240, 151),
    },
    downloaded=True,
)
