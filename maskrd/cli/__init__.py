"""The command `maskrd`: a few subcommands for people, and one for each rule of the workflow.

Only arguments are read here. Each command imports what it needs when it runs, because hundreds of short jobs call it.
To add a command, write a function in the file of its group. Its docstring is its help.
"""

import logging
import sys

import typer

from maskrd.cli import data, models, people, views
from maskrd.errors import MaskrdError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for group in (people, data, models, views):
    app.add_typer(group.app)


def main() -> None:
    """Run the command line. An error that the user can correct is one message and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)  # of libraries
    logging.getLogger("maskrd").setLevel(logging.INFO)
    try:
        app()
    except MaskrdError as error:
        sys.exit(f"Error: {error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"Error: {where}{error.strerror or error}. Check the path, its permissions and the free space.")
    except KeyboardInterrupt:
        sys.exit(130)
