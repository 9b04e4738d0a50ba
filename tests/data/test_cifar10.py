import tarfile
from pathlib import Path

import numpy as np
import pytest

from maskrd.data.cifar10 import RECORD_BYTES
from maskrd.data.index_file import Index
from maskrd.data.indexing import build_index
from maskrd.data.samples import load_test, load_train
from maskrd.errors import MaskrdError

SUBSET = Path(__file__).parents[3] / "shared/data/cifar-10-binary-subset.tar.gz"


def write_batch(path: Path, labels: list[int], seed: int) -> np.ndarray:
    """Records of random pixels; returns the images, (N, 3, 32, 32)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), RECORD_BYTES - 1), np.uint8)
    path.write_bytes(np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1).tobytes())
    return pixels.reshape(-1, 3, 32, 32)


@pytest.fixture
def batches(tmp_path):
    return {
        "data_batch_1.bin": write_batch(tmp_path / "data_batch_1.bin", [3, 0, 3, 9], seed=1),
        "data_batch_2.bin": write_batch(tmp_path / "data_batch_2.bin", [1, 3], seed=2),
        "test_batch.bin": write_batch(tmp_path / "test_batch.bin", [0, 3, 5, 3], seed=3),
    }


def test_trains_on_one_class_and_tests_on_all_records(batches, tmp_path):
    index = build_index("cifar10", "cat", tmp_path)
    assert [(entry.image, entry.record) for entry in index.train] == [
        ("data_batch_1.bin", 0),
        ("data_batch_1.bin", 2),
        ("data_batch_2.bin", 1),
    ]
    assert [(entry.record, entry.defect) for entry in index.test] == [
        (0, "airplane"),
        (1, "good"),
        (2, "dog"),
        (3, "good"),
    ]
    assert set(index.digests) == set(batches)
    assert not index.has_masks


def test_pixels_are_red_green_and_blue_planes(batches, tmp_path):
    index = build_index("cifar10", "cat", tmp_path)
    train, test = load_train(index, tmp_path, 32), load_test(index, tmp_path, 32)
    first, second = batches["data_batch_1.bin"], batches["data_batch_2.bin"]
    np.testing.assert_array_equal(train.images, np.stack([first[0], first[2], second[1]]))
    np.testing.assert_array_equal(test.images, batches["test_batch.bin"])
    np.testing.assert_array_equal(test.defective, [True, False, True, False])
    assert test.masks is None


def test_enlarging_keeps_planes_apart(tmp_path):
    record = np.repeat(np.array([10, 100, 200], np.uint8), 1024)
    content = np.concatenate([[np.uint8(3)], record]).astype(np.uint8).tobytes()
    other = b"\5" + content[1:]
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (tmp_path / name).write_bytes(2 * content + other)
    images = load_train(build_index("cifar10", "cat", tmp_path), tmp_path, 64).images
    assert images.shape == (2, 3, 64, 64)
    for plane, value in enumerate((10, 100, 200)):
        assert (images[:, plane] == value).all()


def test_index_survives_writing_and_reading(batches, tmp_path):
    index = build_index("cifar10", "cat", tmp_path)
    index.write(tmp_path / "index.json")
    assert Index.read(tmp_path / "index.json") == index


def test_a_truncated_batch_is_named(batches, tmp_path):
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(MaskrdError, match=r"data_batch_2\.bin.*cut short.*Download it again"):
        build_index("cifar10", "cat", tmp_path)


def test_an_empty_batch_is_named(batches, tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(b"")
    with pytest.raises(MaskrdError, match=r"test_batch\.bin: 0 bytes"):
        build_index("cifar10", "cat", tmp_path)


def test_a_label_out_of_range_is_named(batches, tmp_path):
    write_batch(tmp_path / "data_batch_1.bin", [3, 10], seed=1)
    with pytest.raises(MaskrdError, match=r"data_batch_1\.bin: label 10"):
        build_index("cifar10", "cat", tmp_path)


def test_a_folder_without_batches_names_the_key(tmp_path):
    with pytest.raises(MaskrdError, match=r"datasets\.cifar10\.path.*cifar-10-batches-bin"):
        build_index("cifar10", "cat", tmp_path)


def test_a_class_with_one_image_is_refused(batches, tmp_path):
    with pytest.raises(MaskrdError, match="1 normal training image"):
        build_index("cifar10", "truck", tmp_path)


def test_a_batch_changed_after_indexing_is_refused(batches, tmp_path):
    index = build_index("cifar10", "cat", tmp_path)
    write_batch(tmp_path / "data_batch_2.bin", [1, 3], seed=4)
    with pytest.raises(MaskrdError, match=r"data_batch_2\.bin: changed since"):
        load_train(index, tmp_path, 32)


@pytest.mark.skipif(not SUBSET.exists(), reason="needs the real subset of CIFAR-10 in ../shared")
def test_real_subset(tmp_path):
    with tarfile.open(SUBSET) as archive:
        archive.extractall(tmp_path, filter="data")
    root = next(tmp_path.rglob("test_batch.bin")).parent
    index = build_index("cifar10", "horse", root)
    assert len(index.train) == 1000
    assert len(index.test) == 10_000
    assert sum(entry.defect == "good" for entry in index.test) == 1000
    images = load_train(index, root, 32).images
    # The published means of the three channels are 125, 123 and 114.
    assert images.shape == (1000, 3, 32, 32)
    assert images.mean((0, 2, 3)) == pytest.approx([125, 123, 114], abs=10)
