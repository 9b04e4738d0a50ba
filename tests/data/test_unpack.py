"""Archives that mean harm, archives that are broken, and archives that are neither."""

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from maskrd.errors import MaskrdError
from maskrd.files import MARKER
from maskrd.sources import unpack as unpack_module
from maskrd.sources.registry import Expected, load_sources
from maskrd.sources.unpack import is_archive, unpack

ROOT = Path(__file__).parents[2]
LIMITS = {"max_bytes": 1_000_000, "max_members": 100}
FILES = {"top/bottle/train/good/000.png": b"a" * 700, "top/bottle/test/good/000.png": b"b" * 1024}


def tar_bytes(members: dict[str, bytes]) -> bytes:
    return tar_of(*((tarfile.TarInfo(name), content) for name, content in members.items()))


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def sparse_tar() -> bytes:
    """GNU's old sparse format: a member of type S whose header lists no pieces."""
    info = tarfile.TarInfo("sparse")
    info.type = tarfile.GNUTYPE_SPARSE
    return tar_of((info, b""))


def zip_bytes(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as contents:
        for name, content in members.items():
            contents.writestr(name, content)
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> bytes:
    """A tar with one member that is no plain file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return tar_of((info, b""))


def zip_special(name: str, kind: int, content: bytes) -> bytes:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as contents:
        contents.writestr(info, content)
    return buffer.getvalue()


def link_then_file() -> bytes:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, ".."
    return tar_of((link, b""), (tarfile.TarInfo("link/escaped"), b"x"))


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def attempt(folder: Path, content: bytes, **options: int) -> Path:
    """Unpack into `<folder>/inner/data`, so that an escape by one or two levels stays in `folder`."""
    archive = folder / "archive"
    archive.write_bytes(content)
    return unpack(archive, folder / "inner/data", **(LIMITS | options))


@pytest.mark.parametrize(
    "pack",
    [
        lambda: tar_bytes(FILES),
        lambda: gzip.compress(tar_bytes(FILES)),
        lambda: bz2.compress(tar_bytes(FILES)),
        lambda: lzma.compress(tar_bytes(FILES)),
        lambda: zip_bytes(FILES),
    ],
    ids=["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"],
)
def test_honest_archives(pack: Callable[[], bytes], tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(pack())
    assert is_archive(tmp_path / "whole")
    assert tree(attempt(tmp_path, pack())) == FILES
    stripped = {name.removeprefix("top/"): content for name, content in FILES.items()}
    # Unpacking again replaces what was there.
    assert tree(attempt(tmp_path, pack(), strip_components=1)) == stripped
    assert {path.name for path in (tmp_path / "inner").iterdir()} == {"data", ".data.maskrd-lock"}


@pytest.mark.parametrize("linked", [False, True], ids=["folder", "link"])
def test_a_folder_of_the_users_is_left_alone(tmp_path: Path, linked: bool) -> None:
    own = tmp_path / "own/mine/x.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"x")
    place = tmp_path / "inner/data"
    place.parent.mkdir()
    if linked:
        place.symlink_to(own.parent.parent)
    else:
        own.parent.parent.rename(place)
    with pytest.raises(MaskrdError, match=r"not made by the pipeline.*set datasets\.data\.path to it"):
        attempt(tmp_path, tar_bytes(FILES))
    assert (place / "mine/x.png").read_bytes() == b"x"
    assert place.is_symlink() == linked
    assert not list(place.parent.glob(".data*"))


HARMFUL = {
    "../x": (tar_bytes({"../x": b"x"}), "../x", "outside"),
    "inner ..": (tar_bytes({"a/../../x": b"x"}), "a/../../x", "outside"),
    "absolute": (tar_bytes({"/tmp/maskrd-escaped": b"x"}), "/tmp/maskrd-escaped", "absolute"),
    "symlink out": (special("s", tarfile.SYMTYPE, "../../x"), "s", "link"),
    "absolute symlink": (special("s", tarfile.SYMTYPE, "/etc"), "s", "link"),
    "symlink, then a file through it": (link_then_file(), "link", "link"),
    "hard link out": (special("h", tarfile.LNKTYPE, "../archive"), "h", "link"),
    "device": (special("d", tarfile.CHRTYPE), "d", "device"),
    "fifo": (special("f", tarfile.FIFOTYPE), "f", "device"),
    "zip ../x": (zip_bytes({"../x": b"x"}), "../x", "outside"),
    "zip absolute": (zip_bytes({"/tmp/maskrd-escaped": b"x"}), "/tmp/maskrd-escaped", "absolute"),
    "zip backslash": (zip_bytes({"..\\x": b"x"}), "..\\\\x", "portable"),
    "zip drive": (zip_bytes({"C:/x": b"x"}), "C:/x", "portable"),
    "zip symlink": (zip_special("s", stat.S_IFLNK, b"../../x"), "s", "link"),
    "zip device": (zip_special("d", stat.S_IFCHR, b""), "d", "device"),
    "sparse": (sparse_tar(), "sparse", "sparse file"),
    "bomb": (gzip.compress(tar_bytes({"b": bytes(2_000_000)})), "b", "more bytes"),
    "bomb of many": (tar_bytes({f"{n:03}": b"" for n in range(101)}), "100", "more members"),
    "zip bomb": (zip_bytes({"b": bytes(2_000_000)}), "b", "more bytes"),
    "zip bomb of many": (zip_bytes({f"{n:03}": b"" for n in range(101)}), "100", "more members"),
}


def test_a_bomb_of_members_that_are_left_out_is_refused(tmp_path: Path) -> None:
    """`strip_components` drops a file at the top; its bytes are decompressed all the same."""
    with pytest.raises(MaskrdError, match="more bytes"):
        attempt(tmp_path, gzip.compress(tar_bytes({"b": bytes(2_000_000), "c/d": b"x"})), strip_components=1)


@pytest.mark.parametrize(("content", "member", "reason"), HARMFUL.values(), ids=HARMFUL.keys())
def test_harmful_archives_are_refused(content: bytes, member: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(MaskrdError) as caught:
        attempt(tmp_path, content)
    message = str(caught.value)
    assert str(tmp_path / "archive") in message
    assert f"'{member}'" in message
    assert reason in message
    # Nothing was unpacked, inside or outside.
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {
        "archive",
        "inner",
        "inner/.data.maskrd-lock",
    }
    assert not Path("/tmp/maskrd-escaped").exists()


def test_bomb_in_a_header_is_not_read_into_memory(tmp_path: Path) -> None:
    """A pax header of 100 MB, which tarfile would read at once before anything could be counted."""
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XHDTYPE, 100_000_000
    with pytest.raises(MaskrdError, match=r"a header claims 100,000,\d+ bytes"):
        attempt(tmp_path, gzip.compress(info.tobuf() + bytes(100_000)), max_bytes=10**9)


def test_zip_that_understates_its_size(tmp_path: Path) -> None:
    content = bytearray(zip_bytes({"b": bytes(2_000_000)}))
    honest = (2_000_000).to_bytes(4, "little")
    assert content.count(honest) == 2  # in the local header and in the directory
    with pytest.raises(MaskrdError, match="'b'"):
        attempt(tmp_path, bytes(content.replace(honest, (10).to_bytes(4, "little"))))


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(tar_bytes(FILES))[:-20],
        lzma.compress(tar_bytes(FILES))[:-20],
        zip_bytes(FILES)[:-20],
        tar_bytes(FILES).replace(b"top/bottle/test", b"top/bottle/t\0st"),
        b"<html>log in to use this network</html>" * 50,
        b"",
        tar_bytes({"file": b"x", "file/below": b"y"}),
        zip_bytes({"file": b"x", "file/below": b"y"}),
    ],
    ids=["cut gzip", "cut xz", "cut zip", "bad header", "html", "empty", "file as folder", "file as folder in zip"],
)
def test_broken_archives_leave_nothing(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(MaskrdError, match="archive"):
        attempt(tmp_path, content)
    assert [path.name for path in (tmp_path / "inner").iterdir()] == [".data.maskrd-lock"]


def test_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(MaskrdError, match=r"absent\.tar: the archive can't be read"):
        unpack(tmp_path / "absent.tar", tmp_path / "data", **LIMITS)


def test_refusal_keeps_what_was_unpacked_before(tmp_path: Path) -> None:
    attempt(tmp_path, tar_bytes(FILES))
    with pytest.raises(MaskrdError):
        attempt(tmp_path, tar_bytes({"good": b"x", "../x": b"x"}))
    assert tree(tmp_path / "inner/data") == FILES


def test_remains_of_a_killed_process_are_cleared(tmp_path: Path) -> None:
    remains = tmp_path / "inner/.data.maskrd-unfinished"
    remains.mkdir(parents=True)
    (remains / "half").write_bytes(b"x")
    assert tree(attempt(tmp_path, tar_bytes(FILES))) == FILES
    assert not remains.exists()


def test_a_zip_with_a_member_without_a_name_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a_member", b"x")
    with pytest.raises(MaskrdError, match="a member has no name"):
        attempt(tmp_path, buffer.getvalue().replace(b"a_member", b"\0_member"))  # names end at the first NUL


@pytest.mark.parametrize("mtime", ["inf", "-inf", "nan", "1e300"])
def test_an_absurd_date_in_a_pax_header_does_not_matter(mtime: str, tmp_path: Path) -> None:
    info = tarfile.TarInfo("file")
    info.pax_headers = {"mtime": mtime}
    assert tree(attempt(tmp_path, tar_of((info, b"x")))) == {"file": b"x"}


def test_a_zip_of_very_many_members_is_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    entry = zip_bytes({"x" * 100: b""})
    directory = entry[entry.index(b"PK\1\2") : entry.index(b"PK\5\6")]
    local, many = entry[: entry.index(b"PK\1\2")], 200_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(directory) * many, len(local), 0)
    tracemalloc.start()
    with pytest.raises(MaskrdError, match="more members"):
        attempt(tmp_path, local + directory * many + end)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{peak / 1e6:.0f} MB")
    # The archive itself, which this test built, has 30 MB.
    assert peak < 100e6


def test_owners_and_setuid_bits_are_dropped(tmp_path: Path) -> None:
    info = tarfile.TarInfo("program")
    info.mode, info.uid = 0o6777, 12345
    status = (attempt(tmp_path, tar_of((info, b"x"))) / "program").stat()
    assert status.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH) == 0
    assert status.st_uid != 12345


NAMES = ("bottle/train/good/0.png", "bottle/train/good/1.png", "screw/train/good/0.png")
MVTEC = (
    Expected(what="categories", files="*/train/good", count=2),
    Expected(what="training images", files="*/train/good/*.png", count=3),
)


def test_counts(tmp_path: Path) -> None:
    assert set(tree(attempt(tmp_path, tar_bytes(dict.fromkeys(NAMES, b"x")), expected=MVTEC))) == set(NAMES)
    with pytest.raises(MaskrdError) as caught:
        attempt(tmp_path, tar_bytes(dict.fromkeys(NAMES[1:], b"other")), expected=MVTEC)
    assert str(tmp_path / "archive") in str(caught.value)
    assert "training images (*/train/good/*.png): 2 found, 3 expected" in str(caught.value)
    assert "categories" not in str(caught.value)
    # An archive of something else used to replace what was unpacked before, and was counted afterwards.
    assert tree(tmp_path / "inner/data") == dict.fromkeys(NAMES, b"x")


def test_counts_of_records(tmp_path: Path) -> None:
    expected = [Expected(what="images", files="data_batch_*.bin", count=5, record_bytes=10)]
    batches = {"data_batch_1.bin": bytes(20), "data_batch_2.bin": bytes(30)}
    attempt(tmp_path, tar_bytes(batches), expected=expected)
    with pytest.raises(MaskrdError, match=r"data_batch_2\.bin: 31 bytes"):
        attempt(tmp_path, tar_bytes(batches | {"data_batch_2.bin": bytes(31)}), expected=expected)


def test_published_counts_of_mvtec_ad() -> None:
    """Bergmann et al. 2021, Table 1 sums to these."""
    expected = load_sources(ROOT / "workflow/sources.yaml").datasets["mvtec_ad"].expected
    counts = {item.what: item.count for item in expected}
    assert counts == {"categories": 15, "training images": 3629, "test images": 1725, "masks": 1258}


def test_real_cifar10_in_the_official_layout(tmp_path: Path) -> None:
    archive = ROOT / "../shared/data/cifar-10-binary-subset.tar.gz"
    if not archive.exists():
        pytest.skip("../shared/data has no CIFAR-10 subset")
    source = load_sources(ROOT / "workflow/sources.yaml").datasets["cifar10"]
    with pytest.raises(MaskrdError) as caught:
        unpack(
            archive,
            tmp_path / "cifar10",
            max_bytes=source.max_bytes,
            max_members=source.max_members,
            strip_components=source.strip_components,
            expected=source.expected,
        )
    # The subset has one training batch of five, and is otherwise as published.
    assert "training batches (data_batch_[1-5].bin): 1 found, 5 expected" in str(caught.value)
    assert "10,000 found, 50,000 expected" in str(caught.value)
    assert "test images" not in str(caught.value)
    assert "records" not in str(caught.value)


def test_real_magnetic_tiles_have_the_published_counts() -> None:
    folder = ROOT / "../shared/data/mtd"
    if not folder.exists():
        pytest.skip("../shared/data has no magnetic tiles")
    source = load_sources(ROOT / "workflow/sources.yaml").datasets["mtd"]
    unpack_module._check_counts(Path("mtd.zip"), folder, source.expected)


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated: a zip's chunks are written to a file system that says ENOSPC."""
    archive = tmp_path / "archive"
    archive.write_bytes(zip_bytes(FILES))

    def full(_: unpack_module._Budget, __: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unpack_module._Budget, "spend_bytes", full)
    with pytest.raises(MaskrdError, match=f"{tmp_path / 'inner'}.*disk is full"):
        unpack(archive, tmp_path / "inner/data", **LIMITS)
    assert [path.name for path in (tmp_path / "inner").iterdir()] == [".data.maskrd-lock"]
