"""The names of the devices that a job can use. The command line reads this, so it imports nothing."""

from typing import Literal

DeviceName = Literal["auto", "cpu", "cuda", "mps", "xpu"]
