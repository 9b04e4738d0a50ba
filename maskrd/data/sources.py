"""Where data and weights come from, as data: `workflow/sources.yaml`, parsed and validated."""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskrd.errors import MaskrdError

Address = Annotated[str, Field(pattern=r"^(https?://|file:///|[^:]+$)")]  # the last: a plain local path


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Checksum(_Entry):
    """What the file's digest must be, in lower-case hex. Every field given is checked."""

    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    sha256_prefix: str | None = Field(None, pattern=r"^[0-9a-f]{8,63}$")
    md5: str | None = Field(None, pattern=r"^[0-9a-f]{32}$")

    @model_validator(mode="after")
    def _not_empty(self) -> "Checksum":
        if not (self.sha256 or self.sha256_prefix or self.md5):
            raise ValueError("give sha256, sha256_prefix or md5, or write `checksum: null` if none is known")
        return self


class Source(_Entry):
    """One file that can be downloaded.

    `key` is its place in the YAML, such as `weights.resnet18`. `addresses` are tried in order. `size` is in
    bytes and serves progress and messages; the checksum decides. `checksum` has no default, so that nobody
    leaves it out by accident: `null` says that none is known and that the first download is to be recorded.
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


class Expected(_Entry):
    """How many files match `files`, a glob below the unpacked folder.

    With `record_bytes` the files are concatenated records of that length, and `count` counts records.
    """

    what: str
    files: str
    count: int = Field(gt=0)
    record_bytes: int | None = Field(None, gt=0)


class Dataset(Source):
    """An archive, the limits within which it is unpacked, and what must be there afterwards."""

    max_bytes: int = Field(gt=0)
    max_members: int = Field(gt=0)
    strip_components: int = Field(0, ge=0)
    expected: tuple[Expected, ...]

    @property
    def config_key(self) -> str:
        return f"{self.key}.archive"


class Sources(_Entry):
    datasets: dict[str, Dataset]
    weights: dict[str, Source]

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
            raise MaskrdError(f"no source is called {key}; known are {', '.join(known)}")
        return known[key]


def load_sources(path: Path) -> Sources:
    """Read a sources file. Raises MaskrdError naming the file and every key that is wrong."""
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MaskrdError(f"cannot read the sources file {path}: {error}") from error
    try:
        return Sources.model_validate(content)
    except ValidationError as error:
        problems = "\n".join(f"  {'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise MaskrdError(f"{path} is not a valid list of sources:\n{problems}") from error
