"""Two models side by side on the same images."""

from collections.abc import Mapping
from pathlib import Path

from maskrd.errors import MaskrdError
from maskrd.files import write_text
from maskrd.reporting.charts import line_chart, scatter
from maskrd.reporting.html import render
from maskrd.reporting.model_page import Picture, by_defect, curves, picture
from maskrd.reporting.naming import metric_name
from maskrd.reporting.tested import Tested, read_tested


def write_comparison(first: Path, second: Path, path: Path) -> None:
    """Write a page about the models in two folders.

    Raises MaskrdError for models of different images, and if the name doesn't end in .html, so that no file of another
    kind is overwritten.
    """
    if path.suffix != ".html":
        raise MaskrdError(f"{path}: the name of the page to write must end in .html.")
    write_text(path, render_comparison(read_tested(first), read_tested(second), {}))


def render_comparison(one: Tested, other: Tested, links: Mapping[str, str]) -> str:
    """Metrics, curves, scores and maps of the images that both kept; `links`: text -> address."""
    names = [f"{tested.title} ({tested.subtitle})" for tested in (one, other)]
    if names[0] == names[1]:
        names = [f"{name}, {which}" for name, which in zip(names, ("first", "second"), strict=True)]
    refuse_other_images(one, other, names)
    metrics = [
        (metric_name(key), value, other.record.percentages[key])
        for key, value in one.record.percentages.items()
        if value is not None and other.record.percentages[key] is not None
    ]
    return render(
        "compare.html",
        title=" and ".join(names),
        names=names,
        links=links,
        metrics=metrics,
        charts=_charts(one, other, names),
        pairs=_pairs(one, other),
    )


def same_images(one: Tested, other: Tested) -> bool:
    return bool(one.scores and other.scores) and set(one.scores.names) == set(other.scores.names)


def refuse_other_images(one: Tested, other: Tested, names: list[str]) -> None:
    """Categories often have images of the same names, so their names are compared, too."""
    places = {(tested.record.training.dataset, tested.record.training.category) for tested in (one, other)}
    if len(places) > 1 or (one.scores and other.scores and not same_images(one, other)):
        raise MaskrdError(f"{' and '.join(names)}: tested on different images, so they can't be compared.")


def _charts(one: Tested, other: Tested, names: list[str]) -> list:
    if not (one.scores and other.scores):
        return []
    unit = (0.0, 1.0)
    rates = [curves(tested.scores.defective, tested.scores.values) for tested in (one, other)]
    roc = {name: (alarms, found) for name, (alarms, found, _) in zip(names, rates, strict=True)}
    recall = {name: (found[1:], precision) for name, (_, found, precision) in zip(names, rates, strict=True)}
    charts = [
        ("ROC of image scores", line_chart(roc, "false positive rate", "true positive rate", unit, unit)),
        ("Precision and recall of image scores", line_chart(recall, "recall", "precision", unit, unit)),
    ]
    curves_of_pro = {
        name: tuple(tested.gallery.pro.tolist())
        for name, tested in zip(names, (one, other), strict=True)
        if tested.gallery and tested.gallery.pro is not None
    }
    if curves_of_pro:
        limit = max(max(fpr) for fpr, _ in curves_of_pro.values())
        chart = line_chart(curves_of_pro, "false positive rate of pixels", "PRO", (0, limit), (0, 1))
        charts.append(("Per-region overlap", chart))
    value = dict(zip(other.scores.names, other.scores.values.tolist(), strict=True))
    points: dict[str, list[tuple[float, float]]] = {defect: [] for defect in by_defect(one.scores)}
    for name, defect, own in zip(one.scores.names, one.scores.defects, one.scores.values.tolist(), strict=True):
        points[defect.replace("_", " ")].append((own, value[name]))
    charts.append(("Scores of the same images", scatter(points, "score of the first", "score of the second")))
    return charts


def _pairs(one: Tested, other: Tested) -> list[tuple[Picture, Picture]]:
    """The pictures that both galleries have."""
    if not (one.gallery and other.gallery):
        return []
    shared = [name for name in one.gallery.names if name in other.gallery.names]
    galleries = one.gallery, other.gallery
    return [tuple(picture(gallery, gallery.names.index(name)) for gallery in galleries) for name in shared]
