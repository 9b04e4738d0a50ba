"""How an anomaly map looks wherever it is drawn."""

import numpy as np

COLORMAP = "turbo"
OVERLAY = 0.45  # opacity of the anomaly map on the image


def scaled(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """The map in its range: `low` is 0, `high` is 1."""
    return (anomaly_map - low) / max(high - low, np.finfo(np.float32).tiny)
