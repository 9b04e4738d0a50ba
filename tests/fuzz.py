"""Damage files of every kind that the program reads, and see that it refuses them by name or reads them.

    python -m tests.fuzz --seconds 600

A case is made by (seed, kind, number) alone: `--only KIND:NUMBER` repeats one. A finding is an error that isn't meant
for the user, a message that doesn't name the file, a file outside the case's folder, a case of more than 20 seconds, or
one that needs a gigabyte more memory than all before it.
"""

import argparse
import io
import json
import math
import random
import resource
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from maskrd.config.load import build_experiment, read_configuration, shipped_configuration
from maskrd.config.method_file import method_file_digest
from maskrd.config.methods import settings_class
from maskrd.config.record import read_record
from maskrd.config.settings import Evaluation
from maskrd.config.teachers import ARCHITECTURES
from maskrd.data.changes import recall, remember
from maskrd.data.images import load_image, load_mask
from maskrd.data.index_file import Entry, Index
from maskrd.data.indexing import build_index
from maskrd.data.samples import load_test
from maskrd.data.stc import load_clip
from maskrd.engine import evaluation as testing
from maskrd.engine import training
from maskrd.engine.anomaly_maps import read_map, read_scores
from maskrd.engine.inputs import TrainingJob, load_inputs
from maskrd.engine.loop import Trainer
from maskrd.engine.machine import Machine
from maskrd.engine.prediction import COLUMNS, PREDICTION, read_rows
from maskrd.engine.scoring import load_scorer
from maskrd.engine.state import StateFolder
from maskrd.engine.store import LAST_STATE, UNREADABLE_STATE, Stored
from maskrd.errors import MaskrdError
from maskrd.gallery import Gallery
from maskrd.methods.teacher import build_pyramid, check_weights, load_teacher, read_weights
from maskrd.reporting.collect import read_speed
from maskrd.reporting.html import read_piece, render_records
from maskrd.reporting.tested import read_history
from maskrd.reporting.tested import read_scores as read_test_scores
from maskrd.sources import published
from maskrd.sources.registry import load_sources
from maskrd.sources.unpack import unpack
from maskrd.workflow.data import weights_of_teacher
from tests.conftest import ROOT, TINY, training_settings, write_category
from tests.kill import write_teacher

LONGEST_S = 20
MOST_BYTES = 1 << 30
ODD_VALUES = [
    *(None, True, -1, 0, 1e308, float("inf"), float("nan"), 2**63, 10**30, "", "\0", "../x", "/etc/passwd", "ü" * 300),
    *([], {}, [None], {"": {}}, [[[[]]]], "null", "1e999", "-1", "a b", "{x}", "$(x)", "\ud800"),
]
ODD_TEXT = [
    "[" * 100_000,
    ".inf",
    "-.nan",
    "null",
    "~",
    "[]",
    "{}",
    "&a [*a]",
    "*a",
    "!!python/object:x",
    "1e999",
    "0x1g",
    "\t",
    "? ",
    "- ",
]


@dataclass(frozen=True)
class Kind:
    """A kind of file: its whole forms, its name, and what reads it."""

    name: str
    whole: list[bytes]
    read: Callable[[Path], object]
    names_file: bool = True  # whether a message must; a configuration's names the key


def mutate(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """One to four changes; half of them near the beginning or the end, where headers and directories are."""
    structured = rng.random() < 0.5 and mutate_structure(rng, content)
    if structured:
        return structured
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        size = len(data)
        zone = rng.choice([size, size, min(size, 600), min(size, 4000)])
        start = rng.randrange(zone + 1) if rng.random() < 0.8 else max(0, size - rng.randrange(zone + 1))
        length = min(rng.choice([1, 1, 2, 4, 8, 64, 1000]), size - start)
        piece = slice(start, start + length)
        change = rng.randrange(7)
        if change == 0:
            data[piece] = rng.randbytes(length)
        elif change == 1:
            data[piece] = b""
        elif change == 2:
            data[piece] = data[piece] * rng.choice([2, 3, 100])
        elif change == 3:
            del data[start:]
        elif change == 4:
            data[piece] = rng.choice([b"\0", b"\xff", b"\x7f", b"9", b" "]) * length
        elif change == 5:
            other = rng.choice(others)
            data[start:] = other[rng.randrange(len(other) + 1) :]
        else:
            data[piece] = rng.choice(ODD_TEXT).encode()
    return bytes(data)


def mutate_structure(rng: random.Random, content: bytes) -> bytes | None:
    """A change inside of JSON, YAML or the header of a safetensors file; None for anything else."""
    try:
        if content[8:9] == b"{":
            (length,) = struct.unpack("<Q", content[:8])
            header = json.loads(content[8 : 8 + length])
            for key, text in header.get("__metadata__", {}).items():
                if text.startswith("{") and rng.random() < 0.8:  # not a digest
                    header["__metadata__"][key] = json.dumps(replace_somewhere(rng, json.loads(text)))
                    break
            else:
                header = replace_somewhere(rng, header)
            text = json.dumps(header).encode()
            return struct.pack("<Q", len(text)) + text + content[8 + length :]
        if content[:1] in b"{[":
            return json.dumps(replace_somewhere(rng, json.loads(content))).encode()
        text = content.decode()
        return yaml.safe_dump(replace_somewhere(rng, yaml.safe_load(text))).encode() if ":" in text else None
    except (ValueError, struct.error, yaml.YAMLError):
        return None


def replace_somewhere(rng: random.Random, value: Any) -> Any:
    """A copy of a JSON value with one part of it replaced, removed or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        change = rng.random()
        if change < 0.1:
            return {name: part for name, part in value.items() if name != key}
        if change < 0.15:
            return {**value, str(rng.choice(ODD_VALUES)): value[key]}
        return {**value, key: replace_somewhere(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        return [*value[:place], replace_somewhere(rng, value[place]), *value[place + rng.randrange(2) :]]
    return rng.choice(ODD_VALUES)


def archives() -> list[bytes]:
    """Tars with and without compression and a zip, of the same members."""
    members = {"top/a/0.png": b"a" * 700, "top/b/1.png": b"b" * 3000, "top/" + "c" * 200: b""}
    made = []
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size, info.pax_headers = len(content), {"mtime": "1.5", "comment": "ü"}
                tar.addfile(info, io.BytesIO(content))
        made.append(buffer.getvalue())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as contents:
        for name, content in members.items():
            contents.writestr(name, content)
    return [*made, buffer.getvalue()]


def pictures() -> list[bytes]:
    rng = np.random.default_rng(0)
    made = []
    for mode, form in (("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("RGB", "JPEG"), ("RGB", "BMP")):
        buffer = io.BytesIO()
        image = Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).convert(mode)
        exif = Image.Exif()
        exif[274] = 6  # turned by 90 degrees
        image.save(buffer, form, **({"exif": exif} if form != "BMP" else {}))
        made.append(buffer.getvalue())
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 1 << 16, (40, 48), dtype=np.uint16)).save(buffer, "PNG")
    return [*made, buffer.getvalue()]


@dataclass(frozen=True)
class Bench:
    """The whole files that cases are made of, below `folder`."""

    folder: Path

    def make(self) -> list[Kind]:
        folder, defaults = self.folder, shipped_configuration(ROOT.joinpath)
        write_category(folder / "data")
        write_teacher(folder / "teacher.safetensors")
        build_index("demo", "bolt", folder / "data").write(folder / "index.json")
        remember(folder / "data/bolt", folder / "memory.json", {})
        recipe, *others = (
            training_settings({**defaults["train"], **TINY, "epochs": 1, "method": method})
            for method in ("maskrd", "padim", "patchcore")
        )
        evaluation = Evaluation.read("evaluation", defaults["evaluation"])
        files = {name: folder / name for name in ("model.safetensors", "history.csv", "store")}
        common = {"index": folder / "index.json", "data": folder / "data", "teacher": folder / "teacher.safetensors"}
        learning = TrainingJob(
            **common,
            model=files["model.safetensors"],
            history=files["history.csv"],
            store=files["store"],
            recipe=recipe,
            seed=0,
            machine=Machine("cpu"),
            cache_gb=1,
            state_minutes=60,
        )
        training.train(learning)
        for other in others:
            path = folder / f"{other.method}.safetensors"
            training.train(replace(learning, recipe=other, model=path, history=path.with_suffix(".csv")))
        trainer = Trainer(load_inputs(learning))
        torch.save(trainer.state(), folder / LAST_STATE)
        job = testing.EvaluationJob(
            **common, model=files["model.safetensors"], evaluation=evaluation, training=recipe, machine=Machine("cpu")
        )
        testing.evaluate(job, folder / "metrics.json", folder / "scores.csv", folder / "gallery.npz")
        return self.kinds(evaluation, trainer)

    def kinds(self, evaluation: Evaluation, trainer: Trainer) -> list[Kind]:
        def content(name: str) -> list[bytes]:
            return [(self.folder / name).read_bytes()]

        data = self.folder / "data"
        pickled = io.BytesIO()
        pyramid = build_pyramid(ARCHITECTURES["demo_resnet18"])
        torch.save(pyramid.state_dict(), pickled)
        teacher, picture = self.folder / "teacher.safetensors", np.zeros((1, 3, 32, 32), np.uint8)
        configurations = [
            path.read_bytes() for path in [ROOT / "config.yaml", *sorted((ROOT / "workflow/config").glob("*.yaml"))]
        ]

        def weights(path: Path) -> None:
            check_weights("demo_resnet18", path, read_weights("demo_resnet18", path), pyramid.state_dict())

        return [
            Kind("archive", archives(), extract),
            Kind("image.png", pictures(), lambda path: load_image(path.read_bytes(), path, 32)),
            Kind("mask.png", pictures(), lambda path: load_mask(path.read_bytes(), path, 32)),
            Kind("weights.pth", [pickled.getvalue()], weights),
            Kind("weights.safetensors", content("teacher.safetensors"), weights),
            Kind("teacher.safetensors", content("teacher.safetensors"), load_teacher),
            Kind(
                "model.safetensors",
                content("model.safetensors") + content("padim.safetensors") + content("patchcore.safetensors"),
                lambda path: load_scorer(path, teacher, evaluation, Machine("cpu")).score(picture),
            ),
            Kind(LAST_STATE, content(LAST_STATE), lambda path: go_on(trainer, path)),
            Kind("metrics.json", content("metrics.json"), read_record),
            Kind("index.json", content("index.json"), Index.read),
            Kind("used.json", content("index.json"), lambda path: load_test(Index.read(path), data, 32), False),
            Kind("digests.json", [b'{"datasets.mtd": "%s"}' % (b"0" * 64)], published._read_records),
            Kind("sources.yaml", [(ROOT / "workflow/sources.yaml").read_bytes()], load_sources),
            Kind(
                "config.yaml",
                configurations,
                lambda path: build_experiment(read_configuration(path), ROOT.joinpath, [path]),
                names_file=False,
            ),
            *self.kinds_of_results(),
            *kinds_of_the_users(),
        ]

    def kinds_of_results(self) -> list[Kind]:
        def content(name: str) -> list[bytes]:
            return [(self.folder / name).read_bytes()]

        speed = {"frames_per_second": {"maskrd": {"1": 9.5, "16": 20}}, "machine": {"device": "CPU", "threads": 1}}
        predicted = "\n".join([",".join(COLUMNS), "a.png,1.5,true,0000-a.png", '"b,c.png",0.5,false,', ""])
        identity = next((self.folder / "store").glob("*/identity.json")).read_bytes()
        return [
            Kind("gallery.npz", content("gallery.npz"), Gallery.read),
            Kind("scores.csv", content("scores.csv"), read_test_scores),
            Kind("history.csv", content("history.csv"), read_history),
            Kind("memory.json", content("memory.json"), recall),
            Kind("identity.json", [identity], lambda path: Stored(path.parent).read(path.name)),
            Kind("made.safetensors", content("teacher.safetensors"), weights_of_teacher),
            Kind("speed.json", [json.dumps(speed).encode()], read_speed),
            Kind("table1.html", [render_records("a", "b", ["c"], [["1"]]).encode()], read_piece),
            Kind("predicted.csv", [predicted.encode()], go_on_predicting),
        ]


def kinds_of_the_users() -> list[Kind]:
    """Results made elsewhere, masks of videos, and a method in a file."""
    maps, masks = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.random.default_rng(0).random((40, 40), np.float32)).save(maps, "TIFF")
    np.save(masks, np.zeros((3, 8, 8), bool))
    method = (ROOT / "docs/examples/my_method.py").read_bytes()
    recipe = settings_class("train.method", "external").model_construct(image_size=32, crop=None)
    scores, entries = b"image,score\na.png,1\nb.png,2.5\n", [Entry("a.png"), Entry("b.png")]
    return [
        Kind("map.tiff", [maps.getvalue()], lambda path: read_map(path, recipe)),
        Kind("theirs.csv", [scores], lambda path: read_scores(path, entries)),
        Kind("clip.npy", [masks.getvalue()], load_clip),
        Kind("mine.py", [method], lambda path: method_file_digest("train.method", f"{path}:Mine")),
    ]


def go_on_predicting(path: Path) -> None:
    """As `maskrd predict` in a folder with the scores of an earlier run."""
    (path.parent / PREDICTION).touch()
    try:
        read_rows(path)
    finally:
        (path.parent / PREDICTION).unlink()


def go_on(trainer: Trainer, path: Path) -> None:
    """As a training that finds a state: a damaged one gets another name."""
    state = StateFolder(path.parent, 60).load()
    if state is not None:
        training.restore(trainer, state, path)


def extract(path: Path) -> None:
    unpack(path, path.parent / "deep/inner/data", max_bytes=1_000_000, max_members=100, strip_components=1)


def find_fault(kind: Kind, path: Path) -> str | None:
    """What is wrong with how `kind` reads the file at `path`, or None."""
    begun, memory = time.monotonic(), peak_bytes()
    try:
        kind.read(path)
    except (MaskrdError, OSError) as error:
        where = str(error) if isinstance(error, MaskrdError) else str(error.filename)
        if kind.names_file and path.name not in where:
            return f"the message doesn't name the file: {error}"
    except Exception:
        return traceback.format_exc()
    if time.monotonic() - begun > LONGEST_S:
        return f"{time.monotonic() - begun:.0f} s"
    if peak_bytes() - memory > MOST_BYTES:
        return f"{(peak_bytes() - memory) / 1e6:.0f} MB of memory"
    allowed = {path.parent / "deep", path.parent / UNREADABLE_STATE}
    strangers = set(path.parent.iterdir()) - allowed - {path}
    return f"it left {', '.join(map(str, strangers))}" if strangers else None


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def try_case(kind: Kind, folder: Path, seed: int, number: int) -> str | None:
    rng = random.Random(f"{seed}/{kind.name}/{number}")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / kind.name
        path.write_bytes(mutate(rng, rng.choice(kind.whole), kind.whole))
        return find_fault(kind, path)


def fuzz(
    seed: int, folder: Path, cases: int = sys.maxsize, seconds: float = math.inf
) -> tuple[dict[str, int], list[str]]:
    """How many cases of each kind were tried, and the findings. It ends after `cases` of each kind or `seconds`."""
    kinds = Bench(folder).make()
    tried, findings = dict.fromkeys((kind.name for kind in kinds), 0), []
    deadline = time.monotonic() + seconds
    for number in range(cases):
        for kind in kinds:
            if time.monotonic() > deadline:
                return tried, findings
            fault = try_case(kind, folder, seed, number)
            tried[kind.name] += 1
            if fault:
                findings.append(f"--seed {seed} --only {kind.name}:{number}\n{fault}")
                print(findings[-1], flush=True)
    return tried, findings


def repeat(seed: int, folder: Path, case: str) -> str | None:
    """The fault of one case, given as KIND:NUMBER, or None."""
    name, number = case.rsplit(":", 1)
    kind = next(kind for kind in Bench(folder).make() if kind.name == name)
    return try_case(kind, folder, seed, int(number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", help="one case, as KIND:NUMBER")
    options = parser.parse_args()
    print(f"--seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if options.only:
            sys.exit(repeat(options.seed, Path(folder), options.only))
        tried, findings = fuzz(options.seed, Path(folder), seconds=options.seconds)
    print(f"{sum(tried.values()):,} cases ({tried}): {len(findings)} findings")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
