"""Methods whose class is in the user's own file."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from maskrd.config.method_file import split_name
from maskrd.config.methods import FileSettings
from maskrd.config.settings import Training
from maskrd.errors import MaskrdError
from maskrd.files import sha256_file
from maskrd.methods.base import Method
from maskrd.methods.teacher import Teacher


def build_from_file(settings: FileSettings, teacher: Teacher) -> Method:
    """The untrained method. Raises MaskrdError if the file isn't the recipe's, and for errors in it."""
    path, name = split_name(settings.method)
    if not path.is_file() or sha256_file(path) != settings.file_sha256:
        raise MaskrdError(
            f"{path}: not the file that this model was made with. It is missing, or it changed. Restore it, or make "
            "the model again with Snakemake."
        )
    with errors_of_file(settings, alone=True):
        spec = spec_from_file_location(f"maskrd_method_{path.stem}", path)
        module = module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses and pickles look there
        spec.loader.exec_module(module)
        method = getattr(module, name)(settings, teacher)
    if not isinstance(method, Method):
        raise MaskrdError(f"{path}: {name} must be a subclass of Method or OnePassMethod (maskrd.methods.base).")
    if not hasattr(method, "settings"):
        raise MaskrdError(f"{path}: {name}.__init__ must call super().__init__(settings, teacher).")
    return method


@contextmanager
def errors_of_file(settings: Training, alone: bool = False) -> Iterator[None]:
    """Turn an error in the user's file into a MaskrdError with file and line, without the pipeline's traceback.

    `alone`: no other code runs here, so every error comes from the file.
    """
    if not isinstance(settings, FileSettings):
        yield
        return
    path, _ = split_name(settings.method)
    try:
        yield
    except MaskrdError:
        raise
    except (Exception, SystemExit) as error:
        places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        if isinstance(error, SyntaxError):
            places.append((error.filename, error.lineno))
        # Python names a file by its whole path, and a configuration most often doesn't.
        lines = [line for file, line in places if file and Path(file).absolute() == path.absolute()]
        if not (lines or alone):
            raise
        where = f"{path}:{lines[-1]}" if lines else path
        raise MaskrdError(f"{where}: {type(error).__name__}: {error}") from error
