"""Others' numbers: where they come from, and which cell they stand beside."""

import pytest

from maskrd.paper.others import other_values, published_by_others


def test_every_number_names_its_source_once():
    keys = [(o.method, o.backbone, o.row, o.metric, o.repository) for o in other_values()]
    assert len(set(keys)) == len(keys)
    assert all(o.repository and o.commit and o.path and 0 < o.value <= 100 for o in other_values())


@pytest.mark.parametrize(
    ("method", "backbone", "row", "metric", "expected"),
    [
        ("RD", "wide_resnet50_2", "transistor", "pixel_auroc", [89.3]),
        ("RD", "wide_resnet50_2", "mean", "pixel_auroc", [96.9]),
        ("STPM", "resnet18", "screw", "image_auroc", [83.5, 89.5]),
        ("STPM", "resnet18", "transistor", "pro_rescaled", [88.1]),
        ("STPM", "resnet18", "transistor", "aupro", []),  # both axes stretched: another quantity
    ],
)
def test_cells(method, backbone, row, metric, expected):
    assert [other.value for other in published_by_others(method, backbone, row, metric)] == expected
