"""Export: a trained model as one ONNX graph of teacher, student, anomaly map, blur and score. It needs no torch."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from maskrd import __version__
from maskrd.config.methods import FileSettings
from maskrd.config.record import Record
from maskrd.engine.machine import Machine
from maskrd.engine.prediction import record_beside, scorer_beside_results
from maskrd.engine.scoring import Scorer
from maskrd.errors import MaskrdError
from maskrd.files import atomic_path

if TYPE_CHECKING:
    from onnx import ModelProto

# Outputs of the graph, in their order.
MAP, SCORE = "anomaly_map", "score"
LARGEST_BYTES = 2_000_000_000  # of weights. Protobuf's limit is 2 GiB, and the graph itself needs a little


class Graph(nn.Module):
    """uint8 images (N, 3, S, S) to blurred anomaly maps, float32 (N, S, S), and image scores, float32 (N,)."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer
        self.method, self.teacher = scorer.method, scorer.teacher  # so that their weights are found

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.scorer.maps_and_scores(images)


def export(model: Path, output: Path, teacher: Path | None = None) -> None:
    """Write the model as ONNX, always in float32. The file's metadata come from `describe`.

    Raises MaskrdError if the name doesn't end in .onnx, so that no model is overwritten, if the teacher or the record
    is missing, for a model that can't be exported, and for a graph that gives other values than torch.
    """
    if output.suffix != ".onnx":
        raise MaskrdError(f"{output}: the name of the file to write must end in .onnx.")
    record = record_beside(model)
    scorer = scorer_beside_results(model, record, teacher, Machine("cpu"))
    check_exportable(scorer)
    graph = build_graph(scorer)
    import onnx

    onnx.helper.set_model_props(graph, {"maskrd": json.dumps(describe(record))})
    with atomic_path(output) as temporary:
        onnx.save(graph, temporary)
        check_graph(temporary, scorer)


def check_exportable(scorer: Scorer) -> None:
    """Raises MaskrdError for a model that can't be exported."""
    problem = scorer.method.export_problem
    if scorer.evaluation.mask_at_test:
        problem = "it was tested with mask_at_test, whose masks are random"
    tensors = [*scorer.method.state_dict().values(), *scorer.teacher.state_dict().values()]
    if sum(tensor.nbytes for tensor in tensors) > LARGEST_BYTES:
        problem = f"its weights have more than the {LARGEST_BYTES:,} bytes of an ONNX file"
    if problem:
        raise export_error(scorer, problem)


@torch.no_grad()
def build_graph(scorer: Scorer) -> "ModelProto":
    """The graph of a scorer on the CPU, for any number of images at a time."""
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401, torch's own message is less clear
    except ImportError:
        raise MaskrdError(
            "Exporting needs onnx, onnxscript and onnxruntime. Install them: pip install 'maskrd[export]'."
        ) from None
    size = scorer.settings.crop or scorer.settings.image_size
    images = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    graph = Graph(scorer).eval()
    graph(images)  # makes the blur's matrices, which torch.export needs as constants
    with refuse_untraceable(scorer):
        program = torch.onnx.export(
            graph,
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=[MAP, SCORE],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    return in_single_precision(program.model_proto)


@contextmanager
def refuse_untraceable(scorer: Scorer) -> Iterator[None]:
    """Raises MaskrdError for a method in a user's file that torch can't trace. Torch then prints the whole graph."""
    try:
        with redirect_stderr(StringIO()):
            yield
    except torch.onnx.OnnxExporterError as error:
        if not isinstance(scorer.settings, FileSettings):
            raise  # our own methods can be traced
        reason = str(error.__cause__ or error).splitlines()[0]
        raise export_error(
            scorer,
            f"torch can't trace its maps ({reason}). Use torch's functions alone, and no `if` or `for` that depends on "
            "the images",
        ) from None


def check_graph(graph: Path, scorer: Scorer) -> None:
    """Raises MaskrdError if the file gives other maps or scores than torch, for one image or for several.

    Torch may trace a method in a user's file wrongly: a loop over the images becomes a loop over two images.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    batch, *shape = session.get_inputs()[0].shape
    if isinstance(batch, int):
        raise export_error(scorer, f"torch traced its maps for batches of {batch} images only")
    for count in (1, 3):
        images = np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)
        with torch.no_grad():
            expected = [part.numpy() for part in scorer.maps_and_scores(torch.from_numpy(images))]
        found = session.run([MAP, SCORE], {"images": images})
        tolerance = scorer.method.export_tolerance
        if not all(is_close(*pair, tolerance) for pair in zip(found, expected, strict=True)):
            raise export_error(scorer, f"the graph gives other values than torch for a batch of {count}")


def is_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    return found.shape == expected.shape and np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def export_error(scorer: Scorer, problem: str) -> MaskrdError:
    predicts = scorer.settings.method != "external" and not scorer.evaluation.mask_at_test
    remedy = " Use it with `maskrd predict`." if predicts else ""
    return MaskrdError(f"{scorer.name}: this model of {scorer.settings.method} can't be exported: {problem}.{remedy}")


def in_single_precision(graph: "ModelProto") -> "ModelProto":
    """The graph in single precision. The blur has double precision, which TensorRT lacks and the maps don't need."""
    from onnx import TensorProto, numpy_helper

    tensors = [*graph.graph.initializer, *(part.t for node in graph.graph.node for part in node.attribute)]
    for tensor in tensors:
        if tensor.data_type == TensorProto.DOUBLE:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name))
    for node in graph.graph.node:
        for part in node.attribute:
            if (node.op_type, part.name, part.i) == ("Cast", "to", TensorProto.DOUBLE):
                part.i = TensorProto.FLOAT
    del graph.graph.value_info[:]  # the types of intermediate values, now wrong
    return graph


def describe(record: Record) -> dict:
    """The graph's metadata: what a program that uses it must know, and where the graph is from.

    A program resizes images to `image_size` pixels a side, bilinearly and antialiased. It then crops the central `crop`
    pixels, unless that is null. An image whose score is above `threshold` counts as anomalous, unless that is null.
    """
    trained = record.training
    return {
        "maskrd": __version__,
        "dataset": trained.dataset,
        "category": trained.category,
        "backbone": trained.backbone,
        "seed": trained.seed,
        "model_sha256": record.evaluation.model_sha256,
        "image_size": trained.recipe.image_size,
        "crop": trained.recipe.crop,
        "threshold": record.decision.threshold if record.decision else None,
        "training": trained.recipe.model_dump(mode="json"),
        "evaluation": record.evaluation.recipe.model_dump(mode="json"),
    }
