"""PatchCore, a memory of normal patches (Roth et al., CVPR 2022)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maskrd.config.methods import PatchCoreSettings
from maskrd.config.settings import Evaluation
from maskrd.methods.base import Features, OnePassMethod, full_precision, resize
from maskrd.methods.teacher import Teacher

COMPARED = 2048  # patches of the memory at a time: it bounds the matrix of distances


class PatchCore(OnePassMethod):
    """The anomaly map is the distance of a patch's features to their nearest neighbour among normal patches.

    Learned: `memory`, float32 (M, C), a coreset of all patches of the training images.
    """

    learned = ("memory",)

    def __init__(self, settings: PatchCoreSettings, teacher: Teacher) -> None:
        super().__init__(settings, teacher)
        channels = sum(teacher.architecture.channels(level) for level in settings.embedding_layers)
        self.register_buffer("projection", torch.randn(channels, settings.projection), persistent=False)

    def embed(self, features: list[Tensor]) -> Tensor:
        """All levels, each averaged over 3x3 positions, on the grid of the finest: float32 (N, P, C)."""
        levels = [F.avg_pool2d(features[k - 1].float(), 3, 1, 1) for k in self.settings.embedding_layers]
        finer = [F.interpolate(level, levels[0].shape[2:], mode="bilinear") for level in levels[1:]]
        return torch.cat([levels[0], *finer], dim=1).flatten(2).transpose(1, 2)

    def learn(self, features: Features, batches: Sequence[Tensor]) -> None:
        """Choose the coreset among projected patches, then keep the whole features of those chosen.

        Two passes over the teacher's features, so that memory holds no more than the projections of all patches.
        """
        with full_precision():
            projected = torch.cat([self.embed(features(batch)).flatten(0, 1) @ self.projection for batch in batches])
        count = max(round(self.settings.coreset_fraction * len(projected)), 1)
        chosen = torch.zeros(len(projected), dtype=torch.bool, device=projected.device)
        chosen[greedy_coreset(projected, count)] = True
        parts = chosen.split([len(batch) * len(projected) // sum(map(len, batches)) for batch in batches])
        kept = [self.embed(features(batch)).flatten(0, 1)[part] for batch, part in zip(batches, parts, strict=True)]
        self.memory = torch.cat(kept)

    def maps_and_scores(self, images: Tensor, evaluation: Evaluation) -> tuple[Tensor, Tensor | None]:
        """The paper's image score (`score: reweighted`) looks at the memory around the most anomalous patch."""
        features = self.teacher(images)
        patches = self.embed(features)
        distances, nearest = (found[..., 0] for found in nearest_neighbours(patches, self.memory, 1))
        grid = features[self.settings.embedding_layers[0] - 1].shape[2:]
        maps = resize(distances.unflatten(1, grid), images.shape[2:])
        return maps, self.reweighted_scores(patches, distances, nearest) if evaluation.score == "reweighted" else None

    def reweighted_scores(self, patches: Tensor, distances: Tensor, nearest: Tensor) -> Tensor:
        """The scores (N,) of patches (N, P, C), their distances (N, P) and the positions (N, P) of their neighbours.

        Equation 7 of the paper: the largest distance, times one minus the softmax of the distances to the `neighbours`
        patches of the memory around the nearest one. It is lower if the memory has many such patches.
        """
        worst = distances.argmax(dim=1, keepdim=True)
        own = distances.gather(1, worst)[:, 0]
        around = nearest_neighbours(self.memory[nearest.gather(1, worst)], self.memory, self.settings.neighbours)[1]
        patch = patches.gather(1, worst[..., None].expand(-1, -1, patches.shape[2]))
        others = (self.memory[around[:, 0]] - patch).norm(dim=2)
        # The nearest one is itself among those around it, unless the memory has equal patches.
        return own * (1 - (own - torch.logsumexp(others, 1)).exp())


def greedy_coreset(points: Tensor, count: int) -> Tensor:
    """Positions of `count` of the points (N, C): a random one, then always the one farthest from those chosen so far.

    Such a point c is nearer to a point x than x's nearest chosen point m only if d(c, m) < 2 d(x, m). So only few
    distances need computing, and the choice is that of the plain algorithm.
    """
    first = int(torch.randint(len(points), ()))
    chosen = torch.full((count,), first, device=points.device)
    centres = points[chosen]
    distances = (points - points[first]).norm(dim=1)
    nearest = torch.zeros_like(distances, dtype=torch.long)  # which of the chosen ones it is
    for number in range(1, count):
        chosen[number] = distances.argmax()
        centres[number] = points[chosen[number]]
        between = (centres[:number] - centres[number]).norm(dim=1)
        near = (between[nearest] < 2 * distances).nonzero()[:, 0]
        closer = (points[near] - centres[number]).norm(dim=1)
        improved = closer < distances[near]
        near = near[improved]
        distances[near], nearest[near] = closer[improved], number
    return chosen


def nearest_neighbours(queries: Tensor, memory: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nearest neighbours of queries (N, Q, C) in the memory (M, C): distances and positions (N, Q, count).

    They are ascending. If the memory is smaller than `count`, there are fewer. A matrix product ranks them. The
    distances are then computed again from differences, because the product of almost equal vectors loses digits.
    """
    doubled, values, positions = 2 * queries, [], []
    with full_precision():
        for start in range(0, len(memory), COMPARED):
            part = memory[start : start + COMPARED]
            ranked = part.square().sum(dim=1) - doubled @ part.T
            best = ranked.topk(min(count, len(part)), largest=False)
            values.append(best.values)
            positions.append(best.indices + start)
    best = torch.cat(values, dim=-1).topk(min(count, len(memory)), largest=False).indices
    found = torch.cat(positions, dim=-1).gather(-1, best)
    distances, order = (memory[found] - queries[:, :, None]).norm(dim=3).sort(dim=2)
    return distances, found.gather(2, order)
