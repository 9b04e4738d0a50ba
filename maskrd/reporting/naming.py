"""The names that readers see instead of the project's identifiers. They are the paper's if it has one."""

import re

from maskrd.config.settings import FULL_METHOD
from maskrd.config.teachers import ARCHITECTURES
from maskrd.paper import OURS, labels

METRIC_TITLES = {
    "image_ap": "Image AP",
    "image_f1max": "Image F1-max",
    "pixel_ap": "Pixel AP",
    "pixel_f1max": "Pixel F1-max",
    "pro_per_image": "PRO per image",
    "pro_200_thresholds": "PRO of 200 thresholds",
    "pro_rescaled": "PRO rescaled",
    "parameters": "Parameters (M)",
    "training_seconds": "Training (s)",
}
# Modules, methods and datasets inside the names of variants.
SPELLING = {
    "cifar10": "CIFAR-10",
    "fmm": "FMM",
    "mkd": "MKD",
    "msfd": "MSFD",
    "msff": "MSFF",
    "padim": "PaDiM",
    "patchcore": "PatchCore",
    "pro": "PRO",
    "rd": "RD",
    "scconv": "SCConv",
    "scsatt": "SCSAtt",
    "simam": "SimAM",
    "stpm": "STPM",
}


def row_name(identifier: str) -> str:
    """A category or `mean`: `metal_nut` is Metal nut, `automobile` the paper's Car."""
    return labels().rows.get(identifier) or identifier.replace("_", " ").capitalize()


def backbone_name(backbone: str) -> str:
    """`wide_resnet50_2` is the paper's WideResNet50, `resnext50_32x4d` ResNeXt50 (32x4d)."""
    known = ARCHITECTURES.get(backbone)
    return labels().rows.get(backbone) or (known.title if known else backbone)


def variant_name(variant: str) -> str:
    """`maskrd` is Ours, `stpm` STPM, `no_fmm` no FMM, `layers_1_2` layers 1+2."""
    if variant == FULL_METHOD:
        return OURS
    words = " ".join(SPELLING.get(word, word) for word in variant.split("_"))
    return re.sub(r"(?<=\d) (?=\d)", "+", words)


def metric_name(metric: str) -> str:
    """The paper's AUROC_AD, AUROC_AL and PRO; in words what the paper doesn't report."""
    if metric.startswith("frames_per_second_"):
        return f"Frames/s, batch {metric.rpartition('_')[2]}"
    return labels().metrics.get(metric) or METRIC_TITLES[metric]


def report_name(name: str) -> str:
    """A table or figure: `table5` is Table 5, `ablation_fmm` Ablation FMM."""
    words = [SPELLING.get(word, word) for word in re.sub(r"(?<=[a-z])(?=\d)", "_", name).split("_")]
    return " ".join([words[0].capitalize(), *words[1:]])


def enumerate_names(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
