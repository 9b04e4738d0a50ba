"""ShanghaiTech Campus, as a generated miniature: frames, masks of whole clips, scenes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrd.config.load import parse_experiment
from maskrd.data.index_file import Index
from maskrd.data.indexing import build_index
from maskrd.data.samples import load_test, load_train
from maskrd.errors import MaskrdError

HEIGHT, WIDTH = 24, 40


def write_frames(folder: Path, count: int, numbers_from: int = 0) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        frame = np.full((HEIGHT, WIDTH, 3), 10 * number, np.uint8)
        Image.fromarray(frame).save(folder / f"{numbers_from + number:03d}.jpg")


@pytest.fixture
def campus(tmp_path: Path) -> Path:
    """Two scenes. In clip 01_0014, frames 4 to 7 are anomalous: on the left half, and frame 5 everywhere."""
    write_frames(tmp_path / "training/frames/01_001", 11, numbers_from=1)
    write_frames(tmp_path / "training/frames/02_001", 6)
    write_frames(tmp_path / "testing/frames/01_0014", 12)
    write_frames(tmp_path / "testing/frames/02_0128", 6)
    masks = np.zeros((12, HEIGHT, WIDTH), np.uint8)
    masks[4:8, :, : WIDTH // 2] = 1
    masks[5] = 1
    (tmp_path / "testing/test_pixel_mask").mkdir()
    np.save(tmp_path / "testing/test_pixel_mask/01_0014.npy", masks)
    np.save(tmp_path / "testing/test_pixel_mask/02_0128.npy", np.zeros((6, HEIGHT, WIDTH), bool))
    return tmp_path


def test_one_scene(campus: Path, tmp_path: Path) -> None:
    (campus / "testing/frames/01_0014/._000.jpg").write_bytes(b"macOS")
    build_index("stc", "01", campus).write(tmp_path / "01.json")
    index = Index.read(tmp_path / "01.json")
    assert [Path(entry.image).stem for entry in index.train] == ["001", "006", "011"]
    assert [(Path(entry.image).stem, entry.defect) for entry in index.test] == [
        ("000", "good"),
        ("005", "anomaly"),
        ("010", "good"),
    ]
    samples = load_test(index, campus, 32)
    assert samples.images.shape == (3, 3, 32, 32)
    assert samples.masks.mean(axis=(1, 2)).tolist() == [0, 1, 0]
    assert samples.defective.tolist() == [False, True, False]
    assert load_train(index, campus, 32).images[1].mean() == pytest.approx(50, abs=1)


def test_masks_follow_their_frames(campus: Path) -> None:
    masks = np.load(campus / "testing/test_pixel_mask/01_0014.npy")
    masks[10, :, : WIDTH // 2] = 255
    np.save(campus / "testing/test_pixel_mask/01_0014.npy", masks)
    samples = load_test(build_index("stc", "all", campus), campus, 20)
    assert samples.masks.mean(axis=(1, 2)).tolist() == [0, 1, 0.5, 0, 0]


def test_all_scenes(campus: Path) -> None:
    index = build_index("stc", "all", campus)
    assert (len(index.train), len(index.test)) == (3 + 2, 3 + 2)


def test_changed_masks_are_refused(campus: Path) -> None:
    index = build_index("stc", "01", campus)
    np.save(campus / "testing/test_pixel_mask/01_0014.npy", np.ones((12, HEIGHT, WIDTH), np.uint8))
    with pytest.raises(MaskrdError, match=r"01_0014\.npy: changed"):
        load_test(index, campus, 32)


def test_what_does_not_fit_is_named(campus: Path) -> None:
    np.save(campus / "testing/test_pixel_mask/01_0014.npy", np.zeros((11, HEIGHT, WIDTH), bool))
    with pytest.raises(MaskrdError, match=r"01_0014\.npy: its shape is \(11, 24, 40\).*12 frames of 24x40"):
        build_index("stc", "01", campus)
    (campus / "testing/test_pixel_mask/01_0014.npy").unlink()
    with pytest.raises(MaskrdError, match=r"01_0014\.npy: can't be read as an array"):
        build_index("stc", "01", campus)
    with pytest.raises(MaskrdError, match=r"training.frames: missing"):
        build_index("stc", "01", campus / "testing")


def test_a_table_needs_its_path(config: dict) -> None:
    config["tables"]["table2"]["dataset"] = "stc"
    with pytest.raises(MaskrdError, match=r"datasets\.stc\.path: missing, and tables\.table2"):
        parse_experiment(config)
    config["datasets"]["stc"]["path"] = "campus"
    assert parse_experiment(config).view("table2").categories == ("all",)
