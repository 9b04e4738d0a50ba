"""Small teachers for the demo, pre-trained on generated textures and shapes.

They stand in for ImageNet: features that distinguish many patterns, sizes and colours also distinguish a defect from
its surroundings. The patterns are generic and don't come from the demo's pictures. Some of them (basket weave, ring,
strand) resemble the demo, as everyday things in ImageNet resemble MVTec AD.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from maskrd.config.teachers import ARCHITECTURES, VGG, Architecture
from maskrd.engine.optim import Adam
from maskrd.layers.resnet import init_weights
from maskrd.methods.teacher import Teacher, TeacherFile, build_pyramid, save_teacher, tensors_sha256

IMAGES = 6144
SIDE = 48  # pixels
STEPS = 250  # for each backbone
BATCH_SIZE = 24
LEARNING_RATE = 3e-3  # peak of a one-cycle schedule
WARM_UP = 0.15  # share of the steps
BETAS = (0.9, 0.99)
COLOUR_WEIGHT = 3.0  # of the loss on colours, relative to that on patterns
SCALES = (4.5, 8.0, 14.0)  # wavelengths in pixels; a single shape is about two wide
MASKS = 512  # shapes in which one picture covers another


@dataclass(frozen=True)
class Plane:
    """The coordinates u and v of every pixel, (N, SIDE, SIDE), in wavelengths. Each image is turned and shifted."""

    u: Tensor
    v: Tensor
    generator: torch.Generator

    def random(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """One number for each image, (N, 1, 1)."""
        return low + (high - low) * torch.rand(len(self.u), 1, 1, generator=self.generator)

    def noise(self, stretch: float = 1.0, waves: int = 10) -> Tensor:
        """Smooth noise of about unit variance: random waves of about one wavelength, `stretch` times as long in u."""
        total = torch.zeros_like(self.u)
        for _ in range(waves):
            direction, frequency = self.random(0, 2 * pi), self.random(0.5, 1.2)
            along_u, along_v = direction.cos() * frequency / stretch, direction.sin() * frequency
            total += (2 * pi * (along_u * self.u + along_v * self.v + self.random())).cos()
        return total * (2 / waves) ** 0.5


def wave(x: Tensor) -> Tensor:
    return 0.5 + 0.5 * (2 * pi * x).cos()


def cell(x: Tensor) -> Tensor:
    """The position in a cell that is one wavelength wide, from -0.5 to 0.5."""
    return x - x.floor() - 0.5


def soft(x: Tensor) -> Tensor:
    """1 where x is positive, 0 where it is negative, and a narrow slope in between."""
    return (0.5 + 6 * x).clamp(0, 1)


def odd(x: Tensor) -> Tensor:
    return x.floor().remainder(2)


def bricks(plane: Plane) -> Tensor:
    shifted = plane.u / 2 + 0.5 * odd(plane.v)
    return soft(0.35 - cell(plane.v).abs()) * soft(0.42 - cell(shifted).abs())


def zigzag(plane: Plane) -> Tensor:
    return wave(plane.v + 0.8 * cell(plane.u / 2).abs() * 2)


def basket(plane: Plane) -> Tensor:
    upright = (odd(plane.u) + odd(plane.v)).remainder(2)
    return wave(2 * plane.u) * upright + wave(2 * plane.v) * (1 - upright)


def polygon(plane: Plane) -> Tensor:
    inside = torch.full_like(plane.u, torch.inf)
    start = plane.random(0, 2 * pi)
    for corner in range(5):
        angle = start + 2 * pi * (corner + plane.random(-0.3, 0.3)) / 5
        inside = torch.minimum(inside, plane.random(0.7, 1.5) - angle.cos() * plane.u - angle.sin() * plane.v)
    return soft(inside)


def strand(plane: Plane) -> Tensor:
    bent = plane.v + plane.random(-0.3, 0.3) * (2 * plane.u).sin()
    return soft(0.15 - bent.abs()) * soft(2 - plane.u.abs())


# Values from 0 (one colour) to 1 (another colour).
PATTERNS: dict[str, Callable[[Plane], Tensor]] = {
    "grating": lambda p: wave(p.u),
    "stripes": lambda p: soft(cell(p.u)),
    "ramp": lambda p: cell(p.u) + 0.5,
    "pinstripes": lambda p: soft(0.12 - cell(p.u).abs()),
    "checkers": lambda p: (odd(p.u) + odd(p.v)).remainder(2),
    "grid": lambda p: soft(0.12 - torch.minimum(cell(p.u).abs(), cell(p.v).abs())),
    "egg_box": lambda p: wave(p.u) * wave(p.v),
    "dots": lambda p: soft(0.28 - torch.hypot(cell(p.u), cell(p.v))),
    "circles": lambda p: soft(0.08 - (torch.hypot(cell(p.u), cell(p.v)) - 0.33).abs()),
    "bricks": bricks,
    "zigzag": zigzag,
    "basket": basket,
    "warped": lambda p: wave(p.u + 0.25 * p.noise(4)),
    "rings": lambda p: wave(torch.hypot(p.u, p.v)),
    "spokes": lambda p: soft(torch.cos(6 * torch.atan2(p.u, p.v))),
    "cloud": lambda p: (0.5 + 0.25 * p.noise()).clamp(0, 1),
    "blobs": lambda p: soft(p.noise()),
    "spots": lambda p: soft(p.noise() - 1.2),
    "veins": lambda p: soft(0.25 - p.noise().abs()),
    "fibres": lambda p: (0.5 + 0.25 * p.noise(6)).clamp(0, 1),
    "edge": lambda p: soft(p.u),
    "polygon": polygon,
    "disc": lambda p: soft(1.1 - torch.hypot(p.u, p.v)),
    "ring": lambda p: soft(0.25 - (torch.hypot(p.u, p.v) - 1).abs()),
    "strand": strand,
    "corner": lambda p: soft(torch.minimum(p.u, p.v)),
}
# These look alike at every scale, so their scales are not classes of their own.
SCALELESS = ("edge", "corner", "spokes")
CLASSES = [(name, scale) for name in PATTERNS for scale in (SCALES[1:2] if name in SCALELESS else SCALES)]


@dataclass(frozen=True)
class Pictures:
    """Pictures to train on, and masks by which one picture covers another.

    images: uint8 (N, 3, SIDE, SIDE). labels: int64 (N,), positions in CLASSES. masks: float (MASKS, 1, SIDE, SIDE), 1
    where the second picture covers the first.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor


def draw_pictures(count: int, seed: int) -> Pictures:
    """`count` pictures, about as many of each class, with random colours, light and noise."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = [], []
    for label, (name, scale) in enumerate(CLASSES):
        number = len(range(label, count, len(CLASSES)))
        amount = PATTERNS[name](draw_plane(number, scale, generator))
        images.append(colour(amount, generator))
        labels.append(torch.full((number,), label))
    masks = soft(draw_plane(MASKS, 24.0, generator).noise() - 0.3).unsqueeze(1)
    return Pictures(torch.cat(images), torch.cat(labels), masks)


def draw_plane(count: int, scale: float, generator: torch.Generator) -> Plane:
    def random(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    at = torch.arange(SIDE) - SIDE / 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    y, x = y + random(-12, 12), x + random(-12, 12)
    angle, wavelength = random(0, 2 * pi), scale * random(0.85, 1.15)
    u = (x * angle.cos() + y * angle.sin()) / wavelength
    v = (y * angle.cos() - x * angle.sin()) / wavelength
    return Plane(u, v, generator)


def colour(amount: Tensor, generator: torch.Generator) -> Tensor:
    """Patterns (N, SIDE, SIDE) in [0, 1] as pictures, uint8 (N, 3, SIDE, SIDE).

    Each has two random colours, uneven light and noise.
    """

    def random(*shape: int) -> Tensor:
        return torch.rand(len(amount), *shape, 1, 1, generator=generator)

    first, second = random(3), random(3)
    too_close = (first - second).abs().amax(dim=1, keepdim=True) < 0.25
    second = torch.where(too_close, 1 - second, second)
    images = torch.lerp(first, second, amount.unsqueeze(1))
    slope = torch.linspace(-0.15, 0.15, SIDE)
    images = images * (1 + (2 * random(1) - 1) * slope + (2 * random(1) - 1) * slope[:, None])
    images += 0.06 * random(1) * torch.randn(images.shape, generator=generator)
    return (images.clamp(0, 1) * 255).round().byte()


class Classifier(nn.Module):
    """A pyramid with a linear head at each level, which names the pattern and the colour at each position."""

    def __init__(self, architecture: Architecture | VGG) -> None:
        super().__init__()
        self.pyramid = build_pyramid(architecture)
        channels = [architecture.channels(level) for level in architecture.levels]
        self.heads = nn.ModuleList(nn.Conv2d(inputs, len(CLASSES) + 3, 1) for inputs in channels)
        init_weights(self.pyramid)

    def forward(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Logits (N, classes, H, W) and colours (N, 3, H, W) of every level."""
        outputs = [head(feature) for head, feature in zip(self.heads, self.pyramid(images), strict=True)]
        return [(output[:, :-3], output[:, -3:]) for output in outputs]


def pretrain(
    outputs: Mapping[str, Path], threads: int, seed: int = 0, images: int = IMAGES, steps: int = STEPS
) -> dict[str, list[float]]:
    """Pre-train each backbone and write its teacher file. Returns the loss of every step, by backbone.

    `outputs`: the path for each backbone. `images`: how many pictures are drawn; all backbones share them. `steps`: of
    the optimizer, for each backbone. A seed gives equal weights on an equal number of threads. The digest in a file is
    that of its weights.
    """
    torch.set_num_threads(threads)
    pictures = draw_pictures(images, seed)
    losses = {}
    for backbone, path in outputs.items():
        torch.manual_seed(seed)
        classifier = Classifier(ARCHITECTURES[backbone])
        losses[backbone] = fit(classifier, pictures, steps, backbone)
        save_teacher(classifier.pyramid, TeacherFile(backbone, tensors_sha256(classifier.pyramid.state_dict())), path)
    return losses


def fit(classifier: Classifier, pictures: Pictures, steps: int, backbone: str) -> list[float]:
    classifier.to(memory_format=torch.channels_last).train()
    normalize = Teacher(ARCHITECTURES[backbone]).normalize
    optimizer = Adam(classifier.parameters(), LEARNING_RATE, BETAS, weight_decay=0)
    losses = []
    with tqdm(total=steps, desc=f"pre-training {backbone}", unit="step", mininterval=1) as progress:
        for step in range(steps):
            batch = draw_batch(pictures)
            images = normalize(batch.images)
            loss = sum(level_loss(logits, colours, images, batch) for logits, colours in classifier(images))
            classifier.zero_grad()
            loss.backward()
            optimizer.settings["lr"] = learning_rate(step / steps)
            optimizer.step()
            losses.append(loss.item())
            progress.set_postfix(loss=f"{losses[-1]:.2f}", refresh=False)
            progress.update()
    return losses


def learning_rate(progress: float) -> float:
    """The rate of a one-cycle schedule: up to the peak within WARM_UP, then down to 0. `progress`: from 0 to 1."""
    if progress < WARM_UP:
        return LEARNING_RATE * (0.04 + 0.96 * progress / WARM_UP)
    return LEARNING_RATE * (0.5 + 0.5 * cos(pi * (progress - WARM_UP) / (1 - WARM_UP)))


@dataclass(frozen=True)
class Batch:
    """A batch of pictures, each partly covered by another one.

    images: float (B, 3, SIDE, SIDE) in [0, 255]. below, above: the classes (B,) of the two pictures. mask: (B, 1, SIDE,
    SIDE), the share of each pixel that shows the picture above.
    """

    images: Tensor
    below: Tensor
    above: Tensor
    mask: Tensor


def draw_batch(pictures: Pictures) -> Batch:
    """Random pictures, partly covered by others. To tell what is where, features must be local."""
    below, above = torch.randint(len(pictures.images), (2, BATCH_SIZE))
    mask = pictures.masks[torch.randint(len(pictures.masks), (BATCH_SIZE,))]
    images = torch.lerp(pictures.images[below].float(), pictures.images[above].float(), mask)
    return Batch(images, pictures.labels[below], pictures.labels[above], mask)


def level_loss(logits: Tensor, colours: Tensor, images: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the patterns, weighted by their share of a position, plus the error of its mean colour."""
    stride = SIDE // logits.shape[-1]
    share = F.avg_pool2d(batch.mask, stride).squeeze(1)  # (B, H, W)
    shape = (-1, *logits.shape[2:])
    below, above = (
        F.cross_entropy(logits, label[:, None, None].expand(shape), reduction="none")
        for label in (batch.below, batch.above)
    )
    colour_error = F.mse_loss(colours, F.avg_pool2d(images, stride))
    return torch.lerp(below, above, share).mean() + COLOUR_WEIGHT * colour_error
