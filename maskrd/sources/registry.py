"""The sources of data and weights: `workflow/sources.yaml`, parsed and validated."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from maskrd.config.load import read_configuration
from maskrd.config.settings import StrictData
from maskrd.errors import MaskrdError

Address = Annotated[str, Field(pattern=r"^(https?://|file:///|[^:]+$)")]  # the last: a plain local path
LARGEST_WEIGHTS = 2 << 30  # bytes; of those whose size isn't known


class Checksum(StrictData):
    """The digest that a file must have, in lower-case hex. Every given field is checked."""

    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    sha256_prefix: str | None = Field(None, pattern=r"^[0-9a-f]{8,63}$")
    md5: str | None = Field(None, pattern=r"^[0-9a-f]{32}$")

    @model_validator(mode="after")
    def _not_empty(self) -> "Checksum":
        if not (self.sha256 or self.sha256_prefix or self.md5):
            raise ValueError("give sha256, sha256_prefix or md5, or write `checksum: null` if none is known")
        return self

    def difference(self, path: Path) -> str | None:
        """In what the digest of a file differs, as a clause of a message; None if it doesn't."""
        for algorithm, expected in (("sha256", self.sha256 or self.sha256_prefix), ("md5", self.md5)):
            if expected:
                with path.open("rb") as file:
                    found = hashlib.file_digest(file, algorithm).hexdigest()
                if not found.startswith(expected):
                    return f"{algorithm} is {found} ({path.stat().st_size:,} bytes), expected {expected}"
        return None


class Source(StrictData):
    """One file that can be downloaded.

    `key` is its place in the YAML, such as `weights.resnet18`. `addresses` are tried in order. `size` is in
    bytes; nothing longer is fetched. `checksum` has no default, so that nobody leaves it out by accident: `null` says
    that none is known. Only an archive may be without: its contents are counted, and then its digest is recorded.
    """

    key: str
    file: str = Field(pattern=r"^[\w.-]+$")
    addresses: tuple[Address, ...] = Field(min_length=1)
    size: int | None = Field(gt=0)
    checksum: Checksum | None
    licence: str
    citation: str
    homepage: str

    @property
    def config_key(self) -> str:
        """The configuration key that names a local file to be used instead of the download."""
        return self.key

    @property
    def largest(self) -> int:
        """How many bytes may be fetched."""
        return self.size or LARGEST_WEIGHTS


class Weights(Source):
    """The state dict of a backbone. Only its checksum shows whether it is the right one."""

    checksum: Checksum


class Expected(StrictData):
    """How many files match `files`, a glob below the unpacked folder.

    With `record_bytes` the files are concatenated records of that length, and `count` counts records.
    """

    what: str
    files: str
    count: int = Field(gt=0)
    record_bytes: int | None = Field(None, gt=0)


class Dataset(Source):
    """An archive, the limits for unpacking it, and the files that it must hold."""

    max_bytes: int = Field(gt=0)
    max_members: int = Field(gt=0)
    strip_components: int = Field(0, ge=0)
    expected: tuple[Expected, ...]

    @property
    def config_key(self) -> str:
        return f"{self.key}.archive"

    @property
    def largest(self) -> int:
        return self.size or self.max_bytes


class Sources(StrictData):
    datasets: dict[str, Dataset]
    weights: dict[str, Weights]

    @model_validator(mode="before")
    @classmethod
    def _name_entries(cls, content: Any) -> Any:
        """Tell each entry its own key."""
        if not isinstance(content, dict):
            return content
        return {
            section: {
                name: {"key": f"{section}.{name}", **entry} if isinstance(entry, dict) else entry
                for name, entry in entries.items()
            }
            if isinstance(entries, dict)
            else entries
            for section, entries in content.items()
        }

    def __getitem__(self, key: str) -> Source:
        """The source of `key`, such as `datasets.mvtec_ad`. Raises MaskrdError if there is none."""
        known = {source.key: source for source in (*self.datasets.values(), *self.weights.values())}
        if key not in known:
            raise MaskrdError(f"{key}: no source has this name. Known: {', '.join(known)}.")
        return known[key]


def load_sources(path: Path) -> Sources:
    """Read a sources file. Raises MaskrdError naming the file and every key that is wrong."""
    content = read_configuration(Path(path))
    try:
        return Sources.model_validate(content)
    except ValidationError as error:
        problems = "\n".join(f"  {'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise MaskrdError(f"{path} is not a valid list of sources:\n{problems}") from error
