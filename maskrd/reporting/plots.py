"""The look of pictures that matplotlib draws."""

from collections.abc import Iterator
from contextlib import contextmanager

import seaborn as sns
from matplotlib import rc_context


@contextmanager
def plot_style(axes: str) -> Iterator[None]:
    """seaborn's style of this name. A dollar sign in a folder's name or a caption is one, and begins no formula."""
    with sns.axes_style(axes), sns.plotting_context("paper"), rc_context({"text.parse_math": False}):
        yield
