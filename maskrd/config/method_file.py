"""A method in the user's own file: checked while a run is planned, without running it."""

import ast
from pathlib import Path

from maskrd.config.messages import unknown_word
from maskrd.errors import MaskrdError
from maskrd.files import sha256_file


def split_name(method: str) -> tuple[Path, str]:
    """The file and the class of a method such as my_method.py:Mine."""
    path, _, name = method.rpartition(":")
    return Path(path).expanduser(), name


def method_file_digest(where: str, method: str) -> str:
    """SHA-256 of the file, a part of the model's identity.

    Raises MaskrdError for a file that is missing, isn't Python, or lacks the class. The message begins with `where`.
    """
    path, name = split_name(method)
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise MaskrdError(
            f"{where}: {path}: {error.strerror}. Correct the path. It is relative to the folder that Snakemake runs in."
        ) from None
    # The last two: what is nested too deeply.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        reason = getattr(error, "msg", None) or str(error) or "nested too deeply"
        raise MaskrdError(f"{where}: {path}:{line}: not valid Python ({reason}).") from None
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    if name not in classes:
        raise MaskrdError(f"{where}: {path} has no class of that name: {unknown_word(name, classes)}")
    return sha256_file(path)
