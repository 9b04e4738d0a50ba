"""The page of one model, made from its record, scores, training curve and gallery."""

import base64
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from PIL import Image

from maskrd.colors import COLORMAP, OVERLAY
from maskrd.config.record import Decision, JobRecord, Record
from maskrd.config.settings import Model
from maskrd.data.index_file import GOOD
from maskrd.gallery import Gallery, encode
from maskrd.reporting.charts import histograms, line_chart
from maskrd.reporting.html import render
from maskrd.reporting.naming import metric_name
from maskrd.reporting.tested import Scores, Tested

SHOWN = 4  # pictures of a group
COLORS = (colormaps[COLORMAP](np.arange(256))[:, :3] * 255).astype(np.float32)


@dataclass(frozen=True)
class Picture:
    """One test image: `image`, `truth` and `overlay` are data URIs; `truth` None without masks."""

    name: str
    defect: str
    score: float
    image: str
    truth: str | None
    overlay: str


ANY_PAGE = "*.seed*.html"  # a pattern of `page_name`


def page_name(model: Model) -> str:
    return f"{model.path.replace('/', '.')}.html"


def render_model(tested: Tested, links: Mapping[str, str], target: Path) -> str:
    """The page of a model. `links`: text -> address, of pages that belong to it; `target`: its metrics.json."""
    record = tested.record
    metrics = [(metric_name(name), value) for name, value in record.percentages.items() if value is not None]
    return render(
        "model.html",
        title=f"{tested.title} ({tested.subtitle})",
        tested=tested,
        links=links,
        metrics=metrics,
        charts=score_charts(tested),
        training=training_chart(tested),
        groups=gallery_groups(tested.gallery) if tested.gallery else {},
        facts=facts(record),
        command=f"snakemake --cores 8 -- {shlex.quote(str(target))}",
    )


def score_charts(tested: Tested) -> list[tuple[str, Markup]]:
    """ROC, precision and recall, PRO, and the histograms of scores; those that the files allow."""
    charts = []
    if tested.scores:
        false_rates, found, precision = curves(tested.scores.defective, tested.scores.values)
        unit = (0.0, 1.0)
        roc = line_chart({"": (false_rates, found)}, "false positive rate", "true positive rate", unit, unit)
        charts.append(("ROC of image scores", roc))
        recall = line_chart({"": (found[1:], precision)}, "recall", "precision", unit, unit)
        charts.append(("Precision and recall of image scores", recall))
    if tested.gallery and tested.gallery.pro is not None:
        fpr, pro = tested.gallery.pro.tolist()
        chart = line_chart({"": (fpr, pro)}, "false positive rate of pixels", "PRO", (0, max(fpr)), (0, 1))
        charts.append(("Per-region overlap", chart))
    if tested.scores:
        groups = by_defect(tested.scores)
        charts.append(("Image scores by defect type", histograms(groups, "score, higher is more anomalous")))
    return charts


def curves(defective: np.ndarray, scores: np.ndarray) -> tuple[list[float], list[float], list[float]]:
    """False and true positive rates from (0, 0), and the precision at each later point; one for each distinct score."""
    order = np.argsort(-scores)
    last = np.r_[np.diff(scores[order]) != 0, True]  # of equal scores only the last is a threshold
    found = np.cumsum(defective[order])[last]
    alarms = np.cumsum(~defective[order])[last]
    rates = [np.r_[0, count / max(count[-1], 1)].tolist() for count in (alarms, found)]
    return rates[0], rates[1], (found / (found + alarms)).tolist()


def by_defect(scores: Scores) -> dict[str, list[float]]:
    """The scores of each defect type, good images first."""
    groups: dict[str, list[float]] = {}
    for defect in (GOOD, *sorted(set(scores.defects) - {GOOD})):
        groups[defect.replace("_", " ")] = [
            value for value, own in zip(scores.values.tolist(), scores.defects, strict=True) if own == defect
        ]
    return groups


def training_chart(tested: Tested) -> Markup | None:
    if not tested.history:
        return None
    epochs = tested.history["epoch"]
    names = {"loss": "training", "validation_loss": "held-out normal images"}
    series = {text: (epochs, tested.history[key]) for key, text in names.items() if key in tested.history}
    return line_chart(series, "epoch", "loss", log=True)


def gallery_groups(gallery: Gallery) -> dict[str, list[Picture]]:
    """The worst misses, the worst false alarms, then each defect type."""
    order = np.argsort(gallery.scores)
    misses = [place for place in order if gallery.defects[place] != GOOD]
    alarms = [place for place in order[::-1] if gallery.defects[place] == GOOD]
    groups = {"Worst misses (lowest scores)": misses, "Worst false alarms (highest scores)": alarms}
    for defect in sorted(set(gallery.defects) - {GOOD}):
        groups[defect.replace("_", " ")] = [k for k, own in enumerate(gallery.defects) if own == defect]
    return {name: [picture(gallery, place) for place in places[:SHOWN]] for name, places in groups.items() if places}


def picture(gallery: Gallery, place: int) -> Picture:
    image, mask = gallery.images[place], None if gallery.masks is None else gallery.masks[place]
    overlay = ((1 - OVERLAY) * image + OVERLAY * COLORS[gallery.maps[place]].transpose(2, 0, 1)).astype(np.uint8)
    truth = None if mask is None else _data_uri(_png(mask), "png")
    uris = (_data_uri(encode(shown).tobytes(), "jpeg") for shown in (image, overlay))
    name, defect = gallery.names[place], gallery.defects[place].replace("_", " ")
    return Picture(name, defect, float(gallery.scores[place]), next(uris), truth, next(uris))


def _png(mask: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    return stream.getvalue()


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def facts(record: Record) -> dict[str, str]:
    """Cost and provenance."""
    training, evaluation = record.training, record.evaluation
    digests = {
        "data": training.data_sha256, "teacher": training.teacher_sha256, "ImageNet weights": training.weights_sha256,
        "model": evaluation.model_sha256,
    }  # fmt: skip
    decision = {"threshold": _decision(record.decision)} if record.decision else {}
    return decision | {
        "parameters": f"{training.parameters:,}",
        "training": f"{training.seconds:,.1f} s, {training.epochs} epochs, {training.images} images",
        "testing": f"{evaluation.seconds:,.1f} s, {evaluation.images} images",
        "device": " and ".join(dict.fromkeys(_device(job) for job in (training, evaluation))),
        "versions": f"maskrd {training.maskrd}, torch {training.torch}, Python {training.python}",
        "commit": " and ".join(dict.fromkeys(job.commit or "not recorded" for job in (training, evaluation))),
        "training recipe": _settings(training.recipe.model_dump(mode="json")),
        "evaluation recipe": _settings(evaluation.recipe.model_dump(mode="json")),
        **{f"sha256, {name}": digest for name, digest in digests.items()},
    }


def _decision(decision: Decision) -> str:
    rates = {"recall": decision.recall, "false alarms": decision.false_alarm_rate}
    found = [f"{name} {100 * rate:.1f} %" for name, rate in rates.items() if rate is not None]
    chosen = f"{decision.threshold:.4g}, chosen on {decision.held_out} normal images that were held out"
    return ", ".join([f"{chosen}. On the test set", *found])


def _device(job: JobRecord) -> str:
    return job.device + (f", threads {job.threads}" if job.threads else "")


def _settings(recipe: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {_shown(value)}" for key, value in recipe.items())


def _shown(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "/".join(map(str, value))
    return "none" if value is None else str(value)
