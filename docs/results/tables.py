"""Write the tables of docs/results.md and docs/results/*.md from results/reference, so that no number is typed by hand.

Run it at the top of the repository: `python docs/results/tables.py`. In the pages a table stands between a comment that
describes it, in YAML, and `<!-- end -->`:

    <!-- table
    label: variant                 # header of the first column
    rows:                          # label: models below results/reference, with * for several seeds
      full method: resnet18_20_epochs/models/mvtec_ad/screw/maskrd/resnet18/seed*
    columns: [image_auroc, aupro]  # metrics, or facts of the training
    -->

`published image_auroc` is a column of what independent code publishes for the same cell (maskrd/paper/others.csv);
`published: {padim: PaDiM}` says which method there a variant is.

`{column}` in the models is filled by the names in `columns` if there is also `cell`, the list of metrics in a cell.
Several seeds become mean ± standard deviation (n - 1), and each of them in brackets. With `rescored: FILE.csv` in place
of rows, the table shows what `benchmarks/rescore.py` wrote.

With `choices: FILE.csv` the table shows what `benchmarks/choices.py` wrote. Rows and columns say what their lines of
the file have in common: `{metric: image_auroc, category: pill}` in the row, `{method: padim, choice: ours}` in the
column. `{published: PaDiM}` is what independent code publishes for that cell with ResNet18.

With `epochs: [20, 60]` the rows are models with `checkpoint: best_on_test`. The table shows their test score after so
many epochs, the best one until then, and the difference: the gain from choosing on the test set.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml

from maskrd.paper.others import published_by_others

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "results/reference"
BLOCK = re.compile(r"(<!-- table\n(.*?)-->\n)(.*?)(<!-- end -->)", re.DOTALL)
TITLES = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "PRO",
    "pro_per_image": "PRO per image",
    "pro_200_thresholds": "PRO of 200 thresholds",
    "pro_rescaled": "PRO rescaled",
    "seconds": "training, s",
    "parameters": "parameters, M",
    "epochs": "epochs",
    "published image_auroc": "image AUROC, published",
    "published pixel_auroc": "pixel AUROC, published",
}
FACTS: dict[str, Callable[[dict], str]] = {
    "seconds": lambda training: f"{training['seconds']:,.0f}",
    "parameters": lambda training: f"{training['parameters'] / 1e6:.1f}",
    "epochs": lambda training: str(training["epochs"]),
}


def pages() -> list[Path]:
    return [ROOT / "docs/results.md", *sorted((ROOT / "docs/results").glob("*.md"))]


def read_records(pattern: str) -> list[dict]:
    """The records of the models that `pattern` names, ordered by seed. Raises FileNotFoundError for none."""
    files = sorted(REFERENCE.glob(f"{pattern}/metrics.json"))
    if not files:
        raise FileNotFoundError(f"results/reference/{pattern}/metrics.json: no such record")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def percent(values: Sequence[float | None]) -> str:
    """One value, or mean ± standard deviation with all values; a dash where the data have no masks."""
    if None in values:
        return "–"
    each = [f"{100 * value:.1f}" for value in values]
    if len(each) == 1:
        return each[0]
    return f"{100 * fmean(values):.1f} ± {100 * stdev(values):.1f} ({', '.join(each)})"


def cell(records: Sequence[dict], names: Iterable[str]) -> str:
    """The metrics or facts of models that differ in their seed, divided by slashes."""
    parts = []
    for name in names:
        if name in FACTS:
            facts = [FACTS[name](record["training"]) for record in records]
            parts.append(facts[0] if name != "seconds" and len(set(facts)) == 1 else " and ".join(facts))
        else:
            parts.append(percent([record.get(name) for record in records]))
    return " / ".join(parts)


def published_value(spec: dict[str, Any], pattern: str, metric: str) -> str:
    """What independent code publishes for the models of `pattern`, in percent; a dash where nobody does."""
    *_, category, variant, backbone, _ = pattern.split("/")
    found = published_by_others(spec["published"][variant], backbone, category, metric)
    return f"{found[0].value:.1f}" if found else "–"


def models_table(spec: dict[str, Any]) -> list[list[str]]:
    columns, names = spec["columns"], spec.get("cell")
    lines = [[*spec["label"].split(" | "), *(TITLES.get(name, name) for name in columns)]]
    for label, pattern in spec["rows"].items():
        cells = []
        for name in columns:
            if name.startswith("published "):
                cells.append(published_value(spec, pattern, name.removeprefix("published ")))
            else:
                cells.append(cell(read_records(pattern.replace("{column}", name)), names or [name]))
        lines.append([*str(label).split(" | "), *cells])
    return lines


def rescored_table(spec: dict[str, Any]) -> list[list[str]]:
    """A line for each reading and variant: the mean over seeds, and the bootstrap interval over test images."""
    found: dict[tuple[str, str], dict[str, list[dict]]] = {}
    with (REFERENCE / spec["rescored"]).open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            key = line["reading"], line["model"].split("/")[2]
            found.setdefault(key, {}).setdefault(line["metric"], []).append(line)
    lines = [["reading", "variant", *(TITLES[metric] for metric in spec["columns"])]]
    for (reading, variant), metrics in found.items():
        cells = (rescored_cell(metrics[metric]) for metric in spec["columns"])
        lines.append([reading, spec["names"].get(variant, variant), *cells])
    return lines


def rescored_cell(seeds: list[dict]) -> str:
    """Mean ± standard deviation (n - 1) over seeds; in brackets the interval, its ends averaged over seeds."""
    values = [float(line["value"]) for line in seeds]
    deviation = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    if not all(line["low"] for line in seeds):
        return f"{fmean(values):.1f}{deviation}"
    low, high = (fmean(float(line[end]) for line in seeds) for end in ("low", "high"))
    return f"{fmean(values):.1f}{deviation} ({low:.1f} to {high:.1f})"


def choices_table(spec: dict[str, Any]) -> list[list[str]]:
    with (REFERENCE / spec["choices"]).open(encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    lines = [[spec["label"], *spec["columns"]]]
    for label, row in spec["rows"].items():
        lines.append([label, *(choices_cell(found, {**row, **column}) for column in spec["columns"].values())])
    return lines


def choices_cell(found: Sequence[dict], wanted: dict[str, str]) -> str:
    """One value, or mean ± standard deviation (n - 1) and each seed's value; a dash where nothing was measured."""
    if "published" in wanted:
        found = published_by_others(wanted["published"], "resnet18", wanted["category"], wanted["metric"])
        return percent([found[0].value / 100]) if found else "–"
    values = [float(line["value"]) / 100 for line in found if wanted.items() <= line.items()]
    return percent(values) if values else "–"


def checkpoint_table(spec: dict[str, Any]) -> list[list[str]]:
    """What a training would gain from choosing its epoch on the test set, if it had ended after so many epochs."""
    lines = [[*spec["label"].split(" | "), "epochs", "last epoch", "best epoch", "gain"]]
    for label, pattern in spec["rows"].items():
        histories = read_histories(pattern)
        for epochs in spec["epochs"]:
            last = [scores[epochs - 1] for scores in histories]
            best = [max(scores[:epochs]) for scores in histories]
            gain = [after - before for before, after in zip(last, best, strict=True)]
            lines.append([*label.split(" | "), str(epochs), *map(percent, (last, best, gain))])
    return lines


def read_histories(pattern: str) -> list[list[float]]:
    """The test scores of each epoch, for each model of `pattern`. Raises FileNotFoundError for none."""
    files = sorted(REFERENCE.glob(f"{pattern}/history.csv"))
    if not files:
        raise FileNotFoundError(f"results/reference/{pattern}/history.csv: no such file")
    return [
        [float(line["test_score"]) for line in csv.DictReader(file.read_text(encoding="utf-8").splitlines())]
        for file in files
    ]


def table_text(description: str) -> str:
    spec = yaml.safe_load(description)
    kind = next((name for name in KINDS if name in spec), "rows")
    header, *lines = KINDS[kind](spec)
    return "".join("| " + " | ".join(line) + " |\n" for line in (header, ["---"] * len(header), *lines))


KINDS = {
    "rescored": rescored_table,
    "choices": choices_table,
    "epochs": checkpoint_table,
    "rows": models_table,
}


def page_text(page: Path) -> str:
    """A page with its tables written anew."""
    text = page.read_text(encoding="utf-8")
    return BLOCK.sub(lambda block: block[1] + table_text(block[2]) + block[4], text)


if __name__ == "__main__":
    for page in pages():
        page.write_text(page_text(page), encoding="utf-8")
