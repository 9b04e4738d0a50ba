import errno
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrd.data.changes import content_digest, remember
from maskrd.data.images import load_image, load_mask
from maskrd.data.index_file import Index
from maskrd.data.indexing import build_index
from maskrd.data.registry import DATASETS
from maskrd.data.samples import load_test, load_train
from maskrd.errors import MaskrdError


def index_bolt(category: Path) -> Index:
    return build_index("mvtec_ad", "bolt", category.parent)


def test_lists_splits_defects_and_masks(category):
    index = index_bolt(category)
    assert [entry.image for entry in index.train] == [f"train/good/{k:03d}.png" for k in range(6)]
    assert [(entry.defect, entry.mask) for entry in index.test] == [
        ("crack", "ground_truth/crack/000_mask.png"),
        ("crack", "ground_truth/crack/001_mask.png"),
        ("good", None),
        ("good", None),
        ("good", None),
        ("stain", "ground_truth/stain/000_mask.png"),
        ("stain", "ground_truth/stain/001_mask.png"),
    ]
    assert len(index.digests) == 6 + 7 + 4


def test_is_the_same_for_the_same_files_wherever_they_lie(category, tmp_path):
    index_bolt(category).write(tmp_path / "one.json")
    copy = tmp_path / "elsewhere" / "bolt"
    shutil.copytree(category, copy, copy_function=shutil.copyfile)  # without dates
    build_index("mvtec_ad", "bolt", copy.parent, threads=3).write(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert str(tmp_path) not in (tmp_path / "one.json").read_text()


def test_survives_writing_and_reading(category, tmp_path):
    index = index_bolt(category)
    index.write(tmp_path / "index.json")
    assert Index.read(tmp_path / "index.json") == index


def test_small_files_of_desktops_are_ignored(category):
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (category / "train/good" / name).write_bytes(b"")
    assert len(index_bolt(category).train) == 6


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir"])
def test_hidden_folders_are_no_defects(category, name):
    (category / "test" / name).mkdir()
    shutil.copy(category / "test/good/000.png", category / "test" / name)
    assert {entry.defect for entry in index_bolt(category).test} == {"good", "crack", "stain"}


def truncate(category: Path) -> None:
    path = category / "train/good/003.png"
    path.write_bytes(path.read_bytes()[:1000])


def put_text_for_an_image(category: Path) -> None:
    (category / "test/crack/001.png").write_text("not an image")


def empty_an_image(category: Path) -> None:
    (category / "test/good/000.png").write_bytes(b"")


def add_a_document(category: Path) -> None:
    (category / "train/good/readme.txt").write_text("hello")


def drop_a_mask(category: Path) -> None:
    (category / "ground_truth/stain/001_mask.png").unlink()


def truncate_a_mask(category: Path) -> None:
    path = category / "ground_truth/stain/001_mask.png"
    path.write_bytes(path.read_bytes()[:60])


def shrink_a_mask(category: Path) -> None:
    Image.new("L", (32, 48)).save(category / "ground_truth/crack/000_mask.png")


def paint_a_mask_with_ones(category: Path) -> None:
    path = category / "ground_truth/crack/000_mask.png"
    Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)


def leave_good_tests_only(category: Path) -> None:
    for name in ("crack", "stain"):
        shutil.rmtree(category / "test" / name)


def leave_defective_tests_only(category: Path) -> None:
    shutil.rmtree(category / "test/good")


def capitalise_good(category: Path) -> None:
    (category / "test/good").rename(category / "test/Good")


def link_to_nowhere(category: Path) -> None:
    (category / "train/good/900.png").symlink_to("/nowhere.png")


def nest_a_folder(category: Path) -> None:
    (category / "train/good/more").mkdir()


def deepen_an_image(category: Path) -> None:
    Image.fromarray(np.full((64, 64), 40000, np.uint16)).save(category / "train/good/002.png")


def damage_exif(category: Path) -> None:
    """EXIF data that end within their header."""
    path = category / "train/good/002.png"
    content, data = path.read_bytes(), b"eXIfMM\0*"
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    path.write_bytes(content[:33] + chunk + content[33:])


def save_as(kind: str, mode: str = "RGB"):
    def damage(category: Path) -> None:
        Image.new(mode, (64, 64)).save(category / "train/good/002.png", format=kind)

    return damage


def deep_png(color_type: int, channels: int) -> bytes:
    """64x64 pixels of 16 bits a channel, which Pillow can't write."""

    def chunk(data: bytes) -> bytes:
        return struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))

    rows = (b"\0" + struct.pack(">H", 900) * 64 * channels) * 64
    header = struct.pack(">IIBBBBB", 64, 64, 16, color_type, 0, 0, 0)
    parts = (chunk(b"IHDR" + header), chunk(b"IDAT" + zlib.compress(rows)), chunk(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def deepen_colours(color_type: int, channels: int):
    def damage(category: Path) -> None:
        (category / "train/good/002.png").write_bytes(deep_png(color_type, channels))

    return damage


def put_a_huge_image(category: Path) -> None:
    """Its header says so."""
    content = (category / "train/good/002.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + content[24:29]
    whole = content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    (category / "train/good/002.png").write_bytes(whole)


def deep_tiff(category: Path) -> None:
    """RGB of 16 bits, in one strip after the directory."""
    tags = [
        (256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 300),
        (277, 3, 1, 3), (278, 3, 1, 64), (279, 4, 1, 64 * 64 * 6), (284, 3, 1, 1),
    ]  # fmt: skip
    entries = b"".join(
        struct.pack("<HHII" if kind == 4 or count > 1 else "<HHIHxx", *tag)
        for tag in tags
        for kind, count in [tag[1:3]]
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    content = head.ljust(200, b"\0") + struct.pack("<HHH", 16, 16, 16)
    (category / "train/good/002.png").write_bytes(content.ljust(300, b"\0") + bytes(64 * 64 * 6))


def put_a_pipe(category: Path) -> None:
    os.mkfifo(category / "train/good/900.png")


def misspell_bytes(category: Path) -> None:
    for name in ("test/crack/000{}.png", "ground_truth/crack/000{}_mask.png"):
        (category / name.format("")).rename(category / name.format("\udcff"))  # the byte 255


def empty_training(category: Path) -> None:
    for path in (category / "train/good").iterdir():
        path.unlink()


def leave_one_training_image(category: Path) -> None:
    for path in sorted((category / "train/good").iterdir())[1:]:
        path.unlink()


def empty_test(category: Path) -> None:
    shutil.rmtree(category / "test")
    (category / "test/good").mkdir(parents=True)


def drop(name: str):
    def damage(category: Path) -> None:
        shutil.rmtree(category / name if name else category)

    return damage


FAULTS = {
    "truncated image": (truncate, ["train/good/003.png", "truncated", "Restore"]),
    "text for an image": (put_text_for_an_image, ["test/crack/001.png", "not an image in a known format", "Restore"]),
    "empty file": (empty_an_image, ["test/good/000.png", "not an image in a known format"]),
    "document among images": (add_a_document, ["train/good/readme.txt", "not an image", "Move it"]),
    "missing mask": (drop_a_mask, ["ground_truth/stain/001_mask.png", "missing", "Restore"]),
    "truncated mask": (truncate_a_mask, ["ground_truth/stain/001_mask.png", "can't be read as an image"]),
    "mask of another size": (shrink_a_mask, ["ground_truth/crack/000_mask.png", "32x48", "64x64"]),
    "mask of ones": (paint_a_mask_with_ones, ["ground_truth/crack/000_mask.png", "brightest pixel is 1", "255"]),
    "16-bit image": (deepen_an_image, ["train/good/002.png", "16 bits", "Convert"]),
    "16-bit RGB": (deepen_colours(2, 3), ["train/good/002.png", "16 bits", "Convert"]),
    "16-bit grey with alpha": (deepen_colours(4, 2), ["train/good/002.png", "16 bits", "Convert"]),
    "16-bit RGBA": (deepen_colours(6, 4), ["train/good/002.png", "16 bits", "Convert"]),
    "16-bit RGB TIFF": (deep_tiff, ["train/good/002.png", "16 bits", "Convert"]),
    "too many pixels": (put_a_huge_image, ["train/good/002.png", "has more than", "Make it smaller"]),
    "PostScript": (save_as("EPS"), ["train/good/002.png", "not an image in a known format", "TIFF"]),
    "GIF": (save_as("GIF"), ["train/good/002.png", "not an image in a known format", "TIFF"]),
    "WebP": (save_as("WEBP"), ["train/good/002.png", "not an image in a known format", "TIFF"]),
    "DDS": (save_as("DDS"), ["train/good/002.png", "not an image in a known format", "TIFF"]),
    "CIELAB": (save_as("TIFF", "LAB"), ["train/good/002.png", "can't be read as an image", "LAB"]),
    "damaged EXIF": (damage_exif, ["train/good/002.png", "can't be read as an image", "Restore"]),
    "named pipe": (put_a_pipe, ["train/good/900.png", "not a file", "Move it"]),
    "name that is no UTF-8": (misspell_bytes, ["test/crack/000\\xff.png", "not UTF-8", "Rename"]),
    "no training images": (empty_training, ["bolt", "0 normal training image"]),
    "one training image": (leave_one_training_image, ["bolt", "1 normal training image", "at least 2"]),
    "good tests only": (leave_good_tests_only, ["bolt", "no defective test images"]),
    "defective tests only": (leave_defective_tests_only, ["bolt", "no good test images"]),
    "Good": (capitalise_good, ["test/Good", "Rename it to good"]),
    "dead link": (link_to_nowhere, ["train/good/900.png", "broken link", "Move it"]),
    "folder among images": (nest_a_folder, ["train/good/more", "a folder", "Move it"]),
    "no test images": (empty_test, ["bolt", "no test images"]),
    "no folder test": (drop("test"), ["bolt/test", "missing", "train/good"]),
    "no folder train": (drop("train"), ["bolt/train/good", "missing"]),
    "category folder is gone": (drop(""), ["datasets.mvtec_ad.categories", "'bolt'"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_the_file_and_the_remedy(fault, category):
    damage, words = FAULTS[fault]
    damage(category)
    with pytest.raises(MaskrdError) as error:
        index_bolt(category)
    for word in words:
        assert word in str(error.value)


def test_missing_dataset_folder_names_the_key(tmp_path):
    with pytest.raises(MaskrdError, match=r"datasets\.mvtec_ad\.path.*does not exist.*Correct the path"):
        build_index("mvtec_ad", "bolt", tmp_path / "nowhere")


def test_unknown_category_names_those_present(category):
    with pytest.raises(MaskrdError, match=r"'nut'.*bolt"):
        build_index("mvtec_ad", "nut", category.parent)


def test_without_ground_truth_there_are_no_masks(category):
    shutil.rmtree(category / "ground_truth")
    index = index_bolt(category)
    assert not index.has_masks
    samples = load_test(index, category.parent, 32)
    assert samples.masks is None
    assert samples.defective.sum() == 4


def test_samples_are_resized_rgb_with_masks_in_the_order_of_the_index(category):
    index = index_bolt(category)
    samples = load_test(index, category.parent, 32, threads=2)
    assert samples.images.shape == (7, 3, 32, 32)
    assert samples.images.dtype == np.uint8
    assert samples.masks.dtype == bool
    np.testing.assert_array_equal(samples.masks.any((1, 2)), samples.defective)
    np.testing.assert_array_equal(np.argwhere(samples.masks[0]).min(0), [10, 12])
    np.testing.assert_array_equal(np.argwhere(samples.masks[0]).max(0), [17, 21])
    reddish = samples.images[0][:, samples.masks[0]].mean(1)
    assert reddish[0] > 2 * reddish[1]


def test_grey_palette_and_transparent_images_become_rgb(tmp_path):
    for mode in ("L", "P", "RGBA", "LA", "1"):
        Image.new(mode, (8, 8), 1).save(tmp_path / "image.png")
        assert load_image((tmp_path / "image.png").read_bytes(), tmp_path, 8).shape == (3, 8, 8)


def test_mask_is_true_above_one_half(tmp_path):
    Image.fromarray(np.array([[0, 127], [128, 255]], np.uint8)).save(tmp_path / "mask.png")
    mask = load_mask((tmp_path / "mask.png").read_bytes(), tmp_path, 2)
    np.testing.assert_array_equal(mask, [[False, False], [True, True]])


def test_mask_is_resized_bilinearly(tmp_path):
    """An edge within a pixel: three quarters of it are more than half, a quarter is not."""
    fine = np.zeros((8, 8), np.uint8)
    fine[:, :3] = 255  # of pixels of 4: a whole one, and three quarters of it when halved again
    Image.fromarray(fine).save(tmp_path / "mask.png")
    smaller = load_mask((tmp_path / "mask.png").read_bytes(), tmp_path, 2)
    np.testing.assert_array_equal(smaller, [[True, False], [True, False]])
    fine[:, :] = [0, 0, 0, 255, 0, 0, 0, 0]  # what a single sample at the pixel's centre could take for all of it
    Image.fromarray(fine).save(tmp_path / "mask.png")
    assert not load_mask((tmp_path / "mask.png").read_bytes(), tmp_path, 2).any()
    fine[:, :] = [255, 255, 0, 255, 0, 0, 0, 0]
    Image.fromarray(fine).save(tmp_path / "mask.png")
    assert load_mask((tmp_path / "mask.png").read_bytes(), tmp_path, 2)[:, 0].all()
    assert load_mask((tmp_path / "mask.png").read_bytes(), tmp_path, 2, threshold=0).sum() >= 2


def test_a_photo_is_turned_upright(tmp_path):
    wide = Image.new("RGB", (8, 4))
    wide.paste((255, 0, 0), (0, 0, 4, 4))  # left half red
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored left side is shown at the top
    wide.save(tmp_path / "photo.png", exif=exif)
    upright = load_image((tmp_path / "photo.png").read_bytes(), tmp_path, 8)
    assert upright[0, 0].min() > 200
    assert upright[0, 7].max() < 50


@pytest.mark.parametrize("content", ["{", "[]", '{"dataset": "mvtec_ad"}'])
def test_a_damaged_index_is_named(tmp_path, content):
    (tmp_path / "bolt.json").write_text(content)
    with pytest.raises(MaskrdError, match=r"bolt\.json: not an index.*Delete it"):
        Index.read(tmp_path / "bolt.json")


@pytest.mark.parametrize("mask", ["", "002_mask.png"])
def test_an_index_with_a_file_without_digest_is_named(tmp_path, mask):
    good, defective = {"image": "001.png"}, {"image": "001.png", "defect": "dent", "mask": mask}
    content = {"dataset": "mine", "category": "bolt", "train": [good], "test": [defective], "digests": {"001.png": "0"}}
    (tmp_path / "bolt.json").write_text(json.dumps(content))
    with pytest.raises(MaskrdError, match=rf"bolt\.json: not an index.*'{mask}' has no digest"):
        Index.read(tmp_path / "bolt.json")


@pytest.mark.parametrize("name", ["001.png", "001.bmp", "001_mask.tiff"])
def test_a_mask_may_have_the_name_of_its_image_and_another_format(category, name):
    with Image.open(category / "ground_truth/stain/001_mask.png") as mask:
        mask.save(category / "ground_truth/stain" / name)
    (category / "ground_truth/stain/001_mask.png").unlink()
    assert f"ground_truth/stain/{name}" in {entry.mask for entry in index_bolt(category).test}


def test_a_file_changed_after_indexing_is_refused(category):
    index = index_bolt(category)
    Image.new("RGB", (64, 64)).save(category / "train/good/002.png")
    with pytest.raises(MaskrdError, match=r"train/good/002\.png: changed since.*index"):
        load_train(index, category.parent, 32)


def test_a_mask_changed_after_indexing_is_refused(category):
    index = index_bolt(category)
    Image.new("L", (64, 64)).save(category / "ground_truth/crack/000_mask.png")
    with pytest.raises(MaskrdError, match=r"000_mask\.png: changed since"):
        load_test(index, category.parent, 32)


def test_a_file_gone_after_indexing_is_named(category):
    index = index_bolt(category)
    (category / "train/good/002.png").unlink()
    with pytest.raises(MaskrdError, match=r"train/good/002\.png: No such file"):
        load_train(index, category.parent, 32)


@pytest.fixture
def digest(category, tmp_path):
    """The digest of the category now, as a new process would find it."""
    memory = tmp_path / "memory.json"

    def compute() -> str:
        content_digest.cache_clear()
        return content_digest(category, memory)

    compute.memory = memory
    return compute


def test_a_dead_link_is_no_image(category, digest):
    before = digest()
    (category / "dead.png").symlink_to("/nowhere.png")
    assert digest() == before


def test_files_that_are_no_images_leave_the_digest(category, digest):
    before = digest()
    for name in ("readme.txt", "train/good/.DS_Store", ".cache/000.png"):
        (category / name).parent.mkdir(exist_ok=True)
        (category / name).write_bytes(b"x")
    assert digest() == before


def test_images_in_linked_folders_count(category, digest, tmp_path):
    (category / "train").rename(tmp_path / "elsewhere")
    (category / "train").symlink_to(tmp_path / "elsewhere")
    (category / "train/good/up").symlink_to(category)
    before = digest()
    Image.new("RGB", (64, 64)).save(tmp_path / "elsewhere/good/000.png")
    assert digest() != before


def test_touching_a_file_keeps_the_digest(category, digest):
    remember(category, digest.memory, {})
    before = digest()
    os.utime(category / "train/good/000.png", (1, 1))
    assert digest() == before


def test_new_dates_are_read_once(category, digest, capfd):
    remember(category, digest.memory, {})
    for path in category.rglob("*.png"):
        os.utime(path, (1, 1))
    digest()
    assert "Reading" in capfd.readouterr().err
    digest()
    assert capfd.readouterr().err == ""


def test_an_empty_folder_is_one_that_is_away(category, digest):
    """An unmounted disk leaves it."""
    remember(category, digest.memory, {})
    before = digest()
    shutil.rmtree(category)
    category.mkdir()
    assert digest() == before


def test_two_test_images_of_one_stem_are_refused(category):
    shutil.copy(category / "train/good/000.png", category / "train/good/000.bmp")
    index_bolt(category)  # images to learn from have neither masks nor maps
    shutil.copy(category / "test/crack/000.png", category / "test/crack/000.bmp")
    with pytest.raises(MaskrdError, match=r"test/crack/000\.png: has the name of 000\.bmp but for the ending"):
        index_bolt(category)


def test_the_digest_is_the_same_with_and_without_memory(category, digest):
    before = digest()
    remember(category, digest.memory, {})
    assert digest() == before


@pytest.mark.parametrize("change", ["edit", "add", "remove", "rename"])
def test_changed_content_changes_the_digest(category, digest, change):
    remember(category, digest.memory, {})
    before = digest()
    path = category / "train/good/000.png"
    if change == "edit":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1  # of the same size
        path.write_bytes(content)
    elif change == "add":
        shutil.copy(path, category / "train/good/900.png")
    elif change == "remove":
        path.unlink()
    else:
        path.rename(category / "train/good/900.png")
    assert digest() != before


@pytest.mark.parametrize("name", ["data_batch_1.bin", "mask.npy", "photo.JPG"])
def test_every_kind_of_file_that_is_read_counts(tmp_path, name):
    folder = tmp_path / "files"
    folder.mkdir()
    digests = set()
    for content in (b"1", b"2"):
        (folder / name).write_bytes(content)
        content_digest.cache_clear()
        digests.add(content_digest(folder, tmp_path / "memory.json"))
    assert len(digests) == 2


def test_unchanged_files_are_not_read_again(category, digest, monkeypatch):
    remember(category, digest.memory, {})
    read = []
    monkeypatch.setattr("maskrd.data.changes.sha256_file", lambda path: read.append(path.name) or "0")
    os.utime(category / "train/good/001.png", (1, 1))
    digest()
    assert read == ["001.png"]


def test_a_folder_that_is_gone_has_the_remembered_digest(category, digest):
    remember(category, digest.memory, {})
    before = digest()
    shutil.rmtree(category)
    assert digest() == before


def test_a_folder_never_seen_is_absent(category, digest):
    shutil.rmtree(category)
    assert digest() == "absent"


@pytest.mark.parametrize("content", ["[]", "3", '{"a": 1}', '{"a": [1, 2]}', '{"a": ["b", null, "c"]}'])
def test_a_memory_of_another_shape_is_no_memory(digest, content):
    before = digest()
    digest.memory.write_text(content)
    assert digest() == before


def fill(content: bytes):
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize("damage", [fill(b""), fill(b"GIF89a"), lambda path: (path.unlink(), os.mkfifo(path))])
def test_a_folder_with_a_broken_image_has_the_remembered_digest(category, digest, damage, capsys):
    remember(category, digest.memory, {})
    before = digest()
    damage(category / "train/good/000.png")
    assert digest() == before
    assert "train/good/000.png" in capsys.readouterr().err


def test_planning_goes_on_beside_a_pipe_and_a_link_to_itself(category, digest):
    before = digest()
    os.mkfifo(category / "pipe.png")
    with_pipe = digest()
    (category / "loop.png").symlink_to("loop.png")
    assert len({before, with_pipe, digest()}) == 3


def test_planning_goes_on_where_a_file_cannot_be_read(category, digest, monkeypatch):
    before = digest()

    def fail(path: Path) -> str:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("maskrd.data.changes.sha256_file", fail)
    assert digest() != before


def test_a_folder_that_cannot_be_read_has_the_remembered_digest(category, digest, monkeypatch, capsys):
    remember(category, digest.memory, {})
    before, scan = digest(), os.scandir

    def fail(place):
        if str(place).endswith("crack"):
            raise PermissionError(errno.EACCES, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", fail)
    assert digest() == before
    assert "crack: Permission denied" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named_by_the_index(category, monkeypatch):
    read = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == "003.png":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(MaskrdError, match=r"train/good/003\.png: Input/output error\. Make it readable"):
        index_bolt(category)


def test_a_torn_memory_is_no_memory(category, digest):
    before = digest()
    remember(category, digest.memory, {})
    digest.memory.write_text(json.dumps(json.loads(digest.memory.read_text()))[:50])
    assert digest() == before


def test_categories_of_an_archive_share_their_files(tmp_path):
    assert DATASETS["cifar10"].layout.folder_of(tmp_path, "cat") == tmp_path
    assert DATASETS["mvtec_ad"].layout.folder_of(tmp_path, "bolt") == tmp_path / "bolt"
