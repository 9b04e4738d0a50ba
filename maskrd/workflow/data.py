"""Answers for the rules of datasets and teachers: where images and weights come from, and whether they changed."""

import re
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from maskrd.config.experiment import Experiment
from maskrd.config.files import Files, downloaded_file, unpacked_marker
from maskrd.data.changes import content_digest, file_digest, remembered_digest
from maskrd.data.registry import find_layout, is_generated
from maskrd.files import parse_json
from maskrd.sources.registry import Source, Sources


@dataclass(frozen=True)
class DataInputs:
    experiment: Experiment
    sources: Sources

    @property
    def files(self) -> Files:
        return Files(self.experiment)

    @property
    def downloadable(self) -> list[Source]:
        return [*self.sources.datasets.values(), *self.sources.weights.values()]

    def file_pattern(self) -> str:
        """A regular expression that matches the names of all files that can be downloaded."""
        return "|".join(re.escape(source.file) for source in self.downloadable)

    def source_key(self, file: str) -> str:
        """The entry of the sources, such as `datasets.cifar10`, that a downloaded file belongs to."""
        return next(source.key for source in self.downloadable if source.file == file)

    def checksum(self, key: str) -> str:
        """The published checksum as JSON. As a parameter of rules, a corrected checksum downloads the file again."""
        checksum = self.sources[key].checksum
        return checksum.model_dump_json() if checksum else "null"

    def archive(self, dataset: str) -> str:
        """The archive that a dataset is unpacked from: the user's own, or the one to download."""
        own = self.experiment.datasets[dataset].archive
        return own or str(downloaded_file(self.sources.datasets[dataset].file))

    def weights(self, backbone: str) -> str:
        """The ImageNet weights of a teacher: the user's own, or those to download."""
        own = self.experiment.weights.get(backbone)
        return own or str(downloaded_file(self.sources.weights[backbone].file))

    def weights_checksum(self, backbone: str) -> str:
        """The checksum that downloaded weights must have, as JSON. null for the user's own weights: any are fine."""
        return "null" if self.experiment.weights.get(backbone) else self.checksum(f"weights.{backbone}")

    def weights_digest(self, backbone: str) -> str:
        """A parameter of rules that changes when a teacher's weights do."""
        if self.experiment.weights.get(backbone):
            return self._own_weights_digest(backbone)
        if backbone in self.sources.weights:
            return self.checksum(f"weights.{backbone}")
        return "made by the pipeline"

    def _own_weights_digest(self, backbone: str) -> str:
        """Of the user's file. If it is away, that of the weights which the teacher was made from."""
        path, teacher = Path(self.experiment.weights[backbone]), self.files.teacher(backbone)
        return file_digest(path) if path.is_file() or not teacher.exists() else weights_of_teacher(teacher)

    def index_is_current(self, dataset: str, category: str) -> bool:
        """Whether the index fits the user's images as they are now. False for images that aren't the user's."""
        index, memory = self.files.index(dataset, category), self.files.image_memory(dataset, category)
        if not self.experiment.datasets[dataset].path or not index.exists():
            return False
        return self.digest(dataset, category) == remembered_digest(memory)

    def teacher_is_current(self, backbone: str) -> bool:
        """Whether the teacher was made from the weights as they are now. The demo's teachers have no weights file."""
        teacher, own = self.files.teacher(backbone), self.experiment.weights.get(backbone)
        if not teacher.exists() or backbone not in self.sources.weights:
            return teacher.exists()
        made_from = weights_of_teacher(teacher)
        if own:
            return made_from == self._own_weights_digest(backbone)
        checksum = self.sources.weights[backbone].checksum
        known = checksum and (checksum.sha256 or checksum.sha256_prefix)
        return bool(known) and made_from.startswith(known)

    def markers(self, dataset: str, category: str) -> list[Path]:
        """The files that must exist before a category is indexed. There are none for the user's own images."""
        if self.experiment.datasets[dataset].path:
            return []
        if is_generated(dataset):
            part = category if find_layout(dataset).folder_each else "all"
            return [self.files.generated_marker(dataset, part)]
        return [unpacked_marker(dataset)]

    def digest(self, dataset: str, category: str) -> str:
        """A parameter of rules that changes when the images do. Downloaded images never change."""
        path = self.experiment.datasets[dataset].path
        if path:
            layout = find_layout(dataset, self.experiment.datasets[dataset].layout)
            folder = layout.folder_of(path, category)
            return content_digest(folder, self.files.image_memory(dataset, category))
        if dataset in self.sources.datasets:
            return self.checksum(f"datasets.{dataset}")
        return "made by the pipeline"

    def from_network(self) -> list[str | Path]:
        """The unpacked datasets and the weights that the configured tables and figures need from the network."""
        names = (*self.experiment.tables, *self.experiment.figures)
        models = [model for name in names for model in self.experiment.view(name).models()]
        datasets = {model.dataset for model in models if not self.experiment.datasets[model.dataset].path}
        backbones = {model.backbone for model in models}
        markers = [unpacked_marker(name) for name in self.sources.datasets if name in datasets]
        return markers + [self.weights(name) for name in self.sources.weights if name in backbones]


def weights_of_teacher(path: Path) -> str:
    """The sha256 of the weights that a teacher file was made from. Empty for a damaged file."""
    try:
        with safe_open(path, framework="np") as file:
            return str(parse_json(file.metadata()["teacher"])["weights_sha256"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return ""
