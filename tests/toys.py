"""Small networks, images and scenes that several tests need; float64, so that comparisons can be exact."""

import torch
from torch import nn

from robustdml.attacks import RetrievalSystem
from robustdml.deep_metric import DeepMetric
from robustdml.models.embedder import Layers
from robustdml.ranking import Gallery

SHAPE = (1, 4, 4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(dim=6, shape=SHAPE, seed=0):
    """A linear map of the pixels with reproducible weights."""
    pixels = shape[0] * shape[1] * shape[2]
    layer = nn.Linear(pixels, dim, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(dim, pixels, generator=generator(seed), dtype=torch.float64))
    return Layers(dim, nn.Flatten(), layer)


def network(dim=6, seed=0):
    """A nonlinear map with batch normalisation and dropout, in training mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Layers(
            dim,
            *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten()),
            *(nn.Dropout(0.5), nn.Linear(4 * 16, dim)),
        ).double()


def constant(dim=6, value=1.0):
    """Every image becomes the same point."""
    embedder = linear(dim)
    layer = nn.Linear(16, dim).double()
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(value)
    embedder.layers[1] = layer
    return embedder


def blobs(classes=5, per_class=12, shape=SHAPE, seed=0, spread=0.1):
    """Images in [0, 1] scattered around one random image per class, and their labels."""
    g = generator(seed)
    centres = torch.rand(classes, *shape, generator=g, dtype=torch.float64)
    labels = torch.arange(classes).repeat_interleave(per_class)
    noise = torch.randn(len(labels), *shape, generator=g, dtype=torch.float64)
    return (centres[labels] + spread * noise).clamp(0, 1), labels


def scene_of(embedder, distance, images, labels, rows=None, inside=True):
    """The scene of attacking the images at `rows`; unless `inside`, the gallery is all the others."""
    metric = DeepMetric(embedder, distance)
    z = metric.embed(images)
    rows = torch.arange(len(images)) if rows is None else rows
    others = torch.ones(len(images), dtype=torch.bool)
    if not inside:
        others[rows] = False
    system = RetrievalSystem(distance, Gallery(z[others], labels[others]))
    return metric, system.scene(z[rows], labels[rows], rows if inside else None)


def unchanged(embedder):
    """A check that weights, buffers, gradients, modes and `requires_grad` are what they were at this call."""

    def state():
        return (
            {name: value.clone() for name, value in embedder.state_dict().items()},
            [None if p.grad is None else p.grad.clone() for p in embedder.parameters()],
            [p.requires_grad for p in embedder.parameters()],
            [m.training for m in embedder.modules()],
        )

    before = state()

    def check():
        after = state()
        assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
        for old, new in zip(before[1], after[1]):
            assert (old is None) == (new is None)
            assert old is None or torch.equal(old, new)
        assert before[2:] == after[2:]

    return check
