"""Size and speed of an exported model beside the same model in torch.

    python benchmarks/export.py --variant rd --backbone resnet18 --precision fp32 [--json]

Both score decoded uint8 images on the CPU, maps and blur included, at batch 1 and 16. All take turns in one process;
numbers are medians over the rounds. `difference` is the largest one between the two anomaly maps, relative to the
largest value of torch's.
"""

import argparse
import tempfile
from pathlib import Path

import common
import numpy as np
import onnx
import onnxruntime
from inference import BATCH_SIZE, build_scorer

from maskrd.engine.export import build_graph
from maskrd.engine.scoring import Scorer
from maskrd.engine.speed import take_turns


def build_session(scorer: Scorer, path: Path, threads: int) -> onnxruntime.InferenceSession:
    onnx.save(build_graph(scorer), path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def measure(arguments: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        scorer, images = build_scorer(arguments, Path(folder))
        session = build_session(scorer, Path(folder) / "model.onnx", arguments.threads)
        sizes = {name: (Path(folder) / name).stat().st_size for name in ("model.safetensors", "teacher.safetensors")}
        exported_size = (Path(folder) / "model.onnx").stat().st_size
    calls = {}
    for count in (1, BATCH_SIZE):
        part = images[:count]
        calls["torch", count] = lambda part=part: scorer.score(part)
        calls["onnxruntime", count] = lambda part=part: session.run(None, {"images": part})
    seconds = take_turns(calls, arguments.rounds, 1, scorer.device)
    own, other = scorer.score(images)[0], session.run(None, {"images": images})[0]
    return {
        "variant": arguments.variant,
        "backbone": arguments.backbone,
        "image_size": arguments.image_size,
        "precision": arguments.precision,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "model_and_teacher_bytes": sum(sizes.values()),
        "exported_bytes": exported_size,
        "difference": float(np.abs(own - other).max() / own.max()),
        "ms_per_image": {
            f"{name}, batch {count}": common.summary([1000 * value / count for value in taken])
            for (name, count), taken in seconds.items()
        },
        "onnxruntime": onnxruntime.__version__,
        "machine": common.machine(scorer.device),
    }


def print_table(result: dict) -> None:
    print(
        f"{result['variant']}, {result['backbone']}, {result['image_size']} pixels, torch in {result['precision']}, "
        f"{result['threads']} threads, {result['rounds']} rounds"
    )
    print(f"{'ms per image':24} {'median':>9} {'min':>9} {'max':>9}")
    for name, taken in result["ms_per_image"].items():
        print(f"{name:24}" + "".join(f" {taken[key]:9.2f}" for key in ("median", "min", "max")))
    print(f"model and teacher: {result['model_and_teacher_bytes'] / 1e6:.1f} MB")
    print(f"exported: {result['exported_bytes'] / 1e6:.1f} MB; maps differ by {result['difference']:.1e}")
    print(result["machine"])


if __name__ == "__main__":
    common.run_benchmark(__doc__, measure, print_table, devices=["cpu"])
