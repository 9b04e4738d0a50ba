"""Where the anomaly maps of results made elsewhere are."""

import os
from pathlib import Path

IMAGE_SCORES = "scores.csv"
ENDINGS = (".tif", ".tiff")


def maps_folder(maps: str, category: str) -> Path:
    """The folder of a category. `maps` is a path such as theirs/{category}."""
    return Path(maps.replace("{category}", category)).expanduser()


def map_files(folder: Path) -> list[Path]:
    """All TIFF files below a folder, also in linked ones, sorted; none where it doesn't exist.

    A named pipe would be waited on for ever, so it is left out.
    """
    found = (Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names)
    return sorted(path for path in found if path.suffix.lower() in ENDINGS and path.is_file())


def result_files(folder: Path) -> list[Path]:
    """The maps and, where there is one, the file of scores."""
    return [*map_files(folder), *folder.glob(IMAGE_SCORES)]
