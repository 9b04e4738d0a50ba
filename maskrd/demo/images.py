"""Generated categories in MVTec AD's layout, for users without data or network.

`weave` is a texture, `washer` an object. A picture's name is the seed of its random numbers, so it doesn't depend on
the other pictures. Defects have random numbers of their own: outside of its defect, a picture is the same with and
without it.

Coordinates and lengths are in pixels of the finished picture. Pictures are rendered with OVERSAMPLING points per pixel
and side, then averaged. A signed distance is positive inside of its shape.
"""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from maskrd.data.index_file import GOOD
from maskrd.errors import MaskrdError
from maskrd.files import replaced_folder

SIZE = 96  # pixels
TRAIN_IMAGES = 48
TEST_GOOD_IMAGES = 12
IMAGES_PER_DEFECT = 8
DEFECTS = {"weave": ("hole", "stain", "thread"), "washer": ("bite", "scratch", "smear")}
CATEGORIES = tuple(DEFECTS)

OVERSAMPLING = 2
POINTS = SIZE * OVERSAMPLING

# (SIZE, SIZE, 3) in [0, 1] before rounding, and bool (SIZE, SIZE), true on the defect.
Picture = tuple[np.ndarray, np.ndarray]


def generate_demo(root: Path, category: str, seed: int = 0) -> None:
    """Write the category's folder below `root`, whole or not at all. An older one is replaced.

    Equal seeds give equal files. Raises MaskrdError for an unknown category, and for a folder that wasn't made here.
    """
    if category not in CATEGORIES:
        raise MaskrdError(f"{category!r} is not a generated category. Known: {', '.join(CATEGORIES)}.")
    with replaced_folder(Path(root) / category) as folder:
        write_split(folder, "train", category, GOOD, TRAIN_IMAGES, seed)
        write_split(folder, "test", category, GOOD, TEST_GOOD_IMAGES, seed)
        for defect in DEFECTS[category]:
            write_split(folder, "test", category, defect, IMAGES_PER_DEFECT, seed)


def write_split(folder: Path, split: str, category: str, defect: str, count: int, seed: int) -> None:
    images, masks = folder / split / defect, folder / "ground_truth" / defect
    images.mkdir(parents=True)
    if defect != GOOD:
        masks.mkdir(parents=True)
    for number in range(count):
        name = f"{category}/{split}/{defect}/{number:03d}"
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        image, mask = RENDERERS[category](rng, defect)
        Image.fromarray(np.round(image.clip(0, 1) * 255).astype(np.uint8)).save(images / f"{number:03d}.png")
        if defect != GOOD:
            Image.fromarray(mask.astype(np.uint8) * 255).save(masks / f"{number:03d}_mask.png")


def weave(rng: np.random.Generator, defect: str) -> Picture:
    """Plain weave: light warp (vertical) and bluish weft threads, alternately on top."""
    y, x = grid()
    angle, period = rng.normal(0, 0.02), rng.normal(6, 0.08)
    slack_u, slack_v = 0.5 * smooth_noise(rng, 10), 0.5 * smooth_noise(rng, 10)
    u = (x * np.cos(angle) - y * np.sin(angle) + slack_u) / period + rng.uniform(0, 2)
    v = (x * np.sin(angle) + y * np.cos(angle) + slack_v) / period + rng.uniform(0, 2)
    warp, weft = np.floor(u).astype(int), np.floor(v).astype(int)
    across_warp, across_weft = np.cos(np.pi * (u - warp - 0.5)), np.cos(np.pi * (v - weft - 0.5))
    warp_on_top = (warp + weft) % 2 == 0
    relief = np.where(warp_on_top, across_warp**0.6 * (0.65 + 0.35 * across_weft),
                      across_weft**0.6 * (0.65 + 0.35 * across_warp))  # fmt: skip
    warp_tone, weft_tone = rng.normal(1, 0.04, (2, 64))  # no two threads are dyed alike
    tone = np.where(warp_on_top, warp_tone[warp % 64], weft_tone[weft % 64])
    fibres = np.where(warp_on_top, streaks(rng, (4, 0.5)), streaks(rng, (0.5, 4)))
    dye = rng.normal(0, 0.008, 3)
    colour = np.where(warp_on_top[..., None], np.array([0.70, 0.63, 0.52]) + dye, np.array([0.46, 0.50, 0.56]) - dye)
    image = colour * ((0.4 + 0.6 * relief) * tone * (1 + 0.07 * fibres))[..., None]

    flaw, cover = rng.spawn(1)[0], np.zeros((POINTS, POINTS))
    if defect == "hole":
        # Threads break at different lengths.
        frayed = np.where(warp_on_top, flaw.normal(0, 1, 64)[warp % 64], flaw.normal(0, 1, 64)[weft % 64])
        image, cover = tear_hole(flaw, image, frayed)
    elif defect == "stain":
        image, cover = stain(flaw, image)
    elif defect == "thread":
        image, cover = lay_thread(flaw, image)
    return finish(rng, image, cover)


def tear_hole(rng: np.random.Generator, image: np.ndarray, frayed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Show a dark backing. Like all defects, it returns the image and how far the defect covers each point."""
    depth = blob(rng, *rng.uniform(14, SIZE - 14, 2), rng.uniform(6, 10)) + frayed
    cover = coverage(depth)
    backing = np.array([0.20, 0.17, 0.15]) * (1 + 0.15 * smooth_noise(rng, 1.5))[..., None]
    shaded = image * (1 - 0.3 * np.clip(1 + depth / 3, 0, 1)[..., None])
    return blend(shaded, backing, cover), cover


def stain(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cover = np.clip(0.5 + blob(rng, *rng.uniform(14, SIZE - 14, 2), rng.uniform(8, 13)) / 4, 0, 1)
    dirt = np.array([(0.80, 0.46, 0.26), (0.46, 0.80, 0.42), (0.85, 0.42, 0.46)][rng.integers(3)])
    return blend(image, image * dirt, cover * rng.uniform(0.85, 1.0)), cover


def lay_thread(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A loose thread of another colour, with its shadow."""
    distance, _ = strand(rng, rng.uniform(20, SIZE - 20, 2), rng.uniform(25, 50), bend=1.0)
    half_width = rng.uniform(1.5, 2.1)
    cover = coverage(half_width - distance)
    dyed = np.array([(0.62, 0.16, 0.14), (0.82, 0.80, 0.74), (0.14, 0.16, 0.22)][rng.integers(3)])
    rounded = np.sqrt(np.clip(1 - (distance / (half_width + 0.5)) ** 2, 0.1, 1)) * (1 + 0.1 * smooth_noise(rng, 0.5))
    shaded = image * (1 - 0.35 * np.clip(1 - (distance - half_width) / 2, 0, 1)[..., None])
    return blend(shaded, dyed * rounded[..., None], cover), cover


def washer(rng: np.random.Generator, defect: str) -> Picture:
    """A turned metal ring with three stamped dots, lying at any angle on felt."""
    y, x = grid()
    centre_x, centre_y = SIZE / 2 + rng.normal(0, 0.6, 2).clip(-1.5, 1.5)
    rotation, light = rng.uniform(0, 2 * np.pi), np.pi / 4 + rng.normal(0, 0.08)
    radius = np.hypot(x - centre_x, y - centre_y)
    angle = np.arctan2(y - centre_y, x - centre_x)
    outer, inner = 35 + rng.normal(0, 0.3), 15.5 + rng.normal(0, 0.2)
    inside = np.minimum(outer - radius, radius - inner)

    def on_ring(margin: float) -> tuple[float, float]:
        at, turn = flaw.uniform(inner + margin, outer - margin), flaw.uniform(0, 2 * np.pi)
        return centre_x + at * np.cos(turn), centre_y + at * np.sin(turn)

    flaw, cover = rng.spawn(1)[0], np.zeros((POINTS, POINTS))
    if defect == "bite":
        edge, turn = (outer, inner)[flaw.integers(2)], flaw.uniform(0, 2 * np.pi)
        bitten = blob(flaw, centre_x + edge * np.cos(turn), centre_y + edge * np.sin(turn), flaw.uniform(7, 10))
        cover = np.minimum(coverage(bitten), coverage(inside))
        inside = np.minimum(inside, -bitten)

    slope_y, slope_x = np.gradient(inside, 1 / OVERSAMPLING)
    facing = -(slope_x * np.cos(light) + slope_y * np.sin(light))  # 1 where an edge faces the lower right
    bevel = np.clip(1 - inside / 2.5, 0, 1) * facing
    grooves = np.interp(radius, np.arange(64), rng.normal(0, 1, 64))
    sheen = np.cos(2 * (angle - light))  # a turned face shines in two opposite sectors
    metal = 0.56 + 0.12 * sheen + 0.02 * grooves + 0.02 * smooth_noise(rng, 2) - 0.22 * bevel
    for third in range(3):
        turn = rotation + third * 2 * np.pi / 3
        dot_x, dot_y = centre_x + 25 * np.cos(turn), centre_y + 25 * np.sin(turn)
        stamped = 2.6 - np.hypot(x - dot_x, y - dot_y)
        rim = ((x - dot_x) * np.cos(light) + (y - dot_y) * np.sin(light)) / 2.6
        metal += coverage(stamped) * (0.12 * rim - 0.12)
    ring = metal[..., None] * np.array([1.0, 0.98, 0.94])

    if defect == "scratch":
        ring, cover = scratch(flaw, ring, on_ring(4), inside)
    elif defect == "smear":
        ring, cover = smear(flaw, ring, on_ring(6), inside)

    pile = 0.05 * streaks(rng, (0.6, 0.6)) + 0.05 * smooth_noise(rng, 6)
    felt = np.array([0.24, 0.33, 0.30]) * (1 + pile)[..., None]
    shift = tuple(round(2.5 * OVERSAMPLING * offset) for offset in (np.sin(light), np.cos(light)))
    shadow = np.roll(gaussian_filter(coverage(inside), 1.5 * OVERSAMPLING), shift, axis=(0, 1))
    image = blend(felt * (1 - 0.5 * shadow)[..., None], ring, coverage(inside))
    return finish(rng, image, cover)


def scratch(
    rng: np.random.Generator, ring: np.ndarray, middle: tuple[float, float], inside: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bare bright metal between raised, darker rims."""
    distance, along = strand(rng, middle, rng.uniform(20, 32), bend=0.3)
    half_width = rng.uniform(1.1, 1.5) * (1 - 0.6 * np.abs(2 * along - 1))
    cover = coverage(half_width + 0.3 - distance) * coverage(inside)
    rims = np.clip(1.8 - distance, 0, 1) * (1 - cover)
    return blend(ring, np.full(3, 0.92), cover) - 0.18 * rims[..., None], cover


def smear(
    rng: np.random.Generator, ring: np.ndarray, middle: tuple[float, float], inside: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A film of coloured grease."""
    cover = np.clip(0.5 + blob(rng, *middle, rng.uniform(7, 10)) / 2.5, 0, 1) * coverage(inside)
    grease = np.array([(0.42, 0.20, 0.06), (0.12, 0.24, 0.40), (0.46, 0.38, 0.06)][rng.integers(3)])
    film = grease * (1 + 0.12 * smooth_noise(rng, 1.5))[..., None] + 0.3 * ring
    return blend(ring, film, cover * rng.uniform(0.75, 0.95)), cover


RENDERERS: dict[str, Callable[[np.random.Generator, str], Picture]] = {"weave": weave, "washer": washer}


def finish(rng: np.random.Generator, image: np.ndarray, cover: np.ndarray) -> Picture:
    """Add exposure, uneven light and sensor noise at SIZE. The mask is where a defect covers half a pixel or more."""
    y, x = grid()
    tilt = rng.normal(0, 0.03, 2)
    light = rng.uniform(0.94, 1.06) * (1 + tilt[0] * (x / SIZE - 0.5) + tilt[1] * (y / SIZE - 0.5))
    image = average(image * light[..., None])
    return image + rng.normal(0, 0.012, image.shape), average(cover) > 0.5


def average(points: np.ndarray) -> np.ndarray:
    """(POINTS, POINTS, ...) to (SIZE, SIZE, ...)."""
    return points.reshape(SIZE, OVERSAMPLING, SIZE, OVERSAMPLING, *points.shape[2:]).mean(axis=(1, 3))


def grid() -> tuple[np.ndarray, np.ndarray]:
    """y and x of every point, each (POINTS, POINTS)."""
    at = (np.arange(POINTS) + 0.5) / OVERSAMPLING
    return np.meshgrid(at, at, indexing="ij")


def smooth_noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """(POINTS, POINTS) of unit variance, correlated over `sigma` pixels."""
    return streaks(rng, (sigma, sigma))


def streaks(rng: np.random.Generator, sigma: tuple[float, float]) -> np.ndarray:
    """(POINTS, POINTS) of unit variance, correlated over `sigma` pixels along y and along x."""
    noise = gaussian_filter(rng.normal(size=(POINTS, POINTS)), [OVERSAMPLING * axis for axis in sigma], mode="wrap")
    return noise / noise.std()


def coverage(distance: np.ndarray) -> np.ndarray:
    """From 0 to 1 over the pixel that a shape's edge runs through."""
    return np.clip(0.5 + distance, 0, 1)


def blend(below: np.ndarray, above: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return below + (above - below) * alpha[..., None]


def blob(rng: np.random.Generator, centre_x: float, centre_y: float, radius: float) -> np.ndarray:
    """About the signed distance to the edge of an irregular disc."""
    y, x = grid()
    angle = np.arctan2(y - centre_y, x - centre_x)
    outline = 1 + sum(
        rng.normal(0, 0.16 / waves) * np.cos(waves * angle + rng.uniform(0, 2 * np.pi)) for waves in (2, 3, 4, 5)
    )
    return radius * outline - np.hypot(x - centre_x, y - centre_y)


def strand(
    rng: np.random.Generator, middle: tuple[float, float], length: float, bend: float
) -> tuple[np.ndarray, np.ndarray]:
    """Each point's distance to a bent line, and the nearest position (0 to 1) on the line."""
    y, x = grid()
    steps = np.linspace(-0.5, 0.5, 80)
    angle = rng.uniform(0, 2 * np.pi)
    straight, sideways = length * steps, length * bend * (rng.normal(0, 0.5) * steps**2 + rng.normal() * steps**3)
    line_x = middle[0] + straight * np.cos(angle) - sideways * np.sin(angle)
    line_y = middle[1] + straight * np.sin(angle) + sideways * np.cos(angle)
    distances = np.hypot(x[..., None] - line_x, y[..., None] - line_y)
    return distances.min(axis=-1), distances.argmin(axis=-1) / (len(steps) - 1)
