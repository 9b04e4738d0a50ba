"""Generated data: what the rest of the pipeline relies on."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

from maskrd.data.digits import CLASSES
from maskrd.data.index_file import GOOD
from maskrd.data.indexing import build_index
from maskrd.data.registry import published_counts
from maskrd.data.samples import load_test, load_train
from maskrd.demo.digits import generate_digits
from maskrd.demo.images import (
    CATEGORIES,
    DEFECTS,
    IMAGES_PER_DEFECT,
    RENDERERS,
    SIZE,
    TEST_GOOD_IMAGES,
    TRAIN_IMAGES,
    generate_demo,
)
from maskrd.errors import MaskrdError
from maskrd.files import replaced_folder
from maskrd.metrics import auroc


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    for category in CATEGORIES:
        generate_demo(root, category)
    return root


def test_a_folder_of_somebody_else_is_left_alone_and_one_of_ours_replaced(tmp_path: Path) -> None:
    photo = tmp_path / "weave/photo.png"
    photo.parent.mkdir()
    photo.write_bytes(b"mine")
    with pytest.raises(MaskrdError, match="not made by the pipeline"):
        generate_demo(tmp_path, "weave")
    assert photo.read_bytes() == b"mine"
    with replaced_folder(tmp_path / "washer") as folder:
        (folder / "old.png").touch()
    with pytest.raises(ZeroDivisionError), replaced_folder(tmp_path / "washer") as folder:
        1 / 0  # noqa: B018
    assert (tmp_path / "washer/old.png").exists()
    with replaced_folder(tmp_path / "washer"):
        pass
    assert not (tmp_path / "washer/old.png").exists()


@pytest.mark.parametrize("category", CATEGORIES)
def test_layout_is_that_of_mvtec_ad(root: Path, category: str) -> None:
    index = build_index("demo", category, root)
    assert len(index.train) == TRAIN_IMAGES
    expected = {GOOD: TEST_GOOD_IMAGES, **dict.fromkeys(DEFECTS[category], IMAGES_PER_DEFECT)}
    assert Counter(entry.defect for entry in index.test) == expected
    images = [*index.train, *index.test]
    assert len({index.digests[entry.image] for entry in images}) == len(images)
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == sorted(CATEGORIES)


@pytest.mark.parametrize("category", CATEGORIES)
def test_masks_are_black_and_white_and_cover_a_small_part(root: Path, category: str) -> None:
    for path in (root / category / "ground_truth").rglob("*_mask.png"):
        mask = np.asarray(Image.open(path))
        assert mask.shape == (SIZE, SIZE)
        assert set(np.unique(mask)) == {0, 255}
        assert 0.001 < (mask > 0).mean() < 0.1


@pytest.mark.parametrize(("category", "defect"), [(name, defect) for name in CATEGORIES for defect in DEFECTS[name]])
def test_defects_are_where_the_mask_says(category: str, defect: str) -> None:
    """Against the same picture without its defect; shadows and soft rims may reach a little further.

    Elsewhere nothing may change by as much as half a level of grey.
    """
    for seed in range(4):
        good, _ = RENDERERS[category](np.random.default_rng(seed), GOOD)
        image, mask = RENDERERS[category](np.random.default_rng(seed), defect)
        change = np.abs(image - good).max(axis=2)
        assert change[mask].mean() > 0.1
        assert change[~binary_dilation(mask, iterations=10)].max() < 0.5 / 255


@pytest.mark.parametrize("category", CATEGORIES)
def test_mean_intensity_does_not_find_the_defects(root: Path, category: str) -> None:
    samples = load_test(build_index("demo", category, root), root, SIZE)
    area = auroc(samples.defective, samples.images.mean(axis=(1, 2, 3)))
    assert 0.25 < area < 0.75


def test_equal_seeds_give_equal_files(root: Path, tmp_path: Path) -> None:
    generate_demo(tmp_path, "washer")
    files = [path.relative_to(root) for path in sorted((root / "washer").rglob("*.png"))]
    assert files
    assert all((root / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)
    generate_demo(tmp_path, "washer", seed=1)
    assert all((root / name).read_bytes() != (tmp_path / name).read_bytes() for name in files if "train" in name.parts)


def test_unknown_category_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MaskrdError, match=r"bottle.*weave, washer"):
        generate_demo(tmp_path, "bottle")


def test_failure_leaves_the_old_category_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with replaced_folder(tmp_path / "weave") as folder:
        (folder / "old.png").touch()

    def fail(rng: np.random.Generator, defect: str) -> None:
        raise OSError("no space left on device")

    monkeypatch.setitem(RENDERERS, "weave", fail)
    with pytest.raises(OSError, match="no space"):
        generate_demo(tmp_path, "weave")
    assert [path.name for path in tmp_path.rglob("*.png")] == ["old.png"]


def test_digits_read_as_cifar10(tmp_path: Path) -> None:
    generate_digits(tmp_path)
    index = build_index("digits", "three", tmp_path)
    train, test = load_train(index, tmp_path, 32), load_test(index, tmp_path, 32)
    assert len(index.test) == 599
    assert {entry.defect for entry in index.test} == {GOOD, *CLASSES} - {"three"}
    assert 110 < len(train.images) < 130
    assert train.images.max() > 240
    # The mean three is closest to test threes, so labels, pixels and split belong together.
    distance = np.square(test.images.astype(float) - train.images.astype(float).mean(axis=0)).mean(axis=(1, 2, 3))
    assert auroc(test.defective, distance) > 0.9


def test_digits_leave_cifar10_alone(tmp_path: Path) -> None:
    own = tmp_path / "cifar-10-batches-bin/test_batch.bin"
    own.parent.mkdir()
    own.write_bytes(b"mine")
    with pytest.raises(MaskrdError, match="not made by the pipeline"):
        generate_digits(own.parent)
    assert own.read_bytes() == b"mine"


def test_digits_are_the_same_every_time(tmp_path: Path) -> None:
    generate_digits(tmp_path / "a")
    generate_digits(tmp_path / "b")
    for name in ("data_batch_1.bin", "test_batch.bin"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_configuration_knows_the_categories():
    assert tuple(published_counts("demo")) == CATEGORIES
