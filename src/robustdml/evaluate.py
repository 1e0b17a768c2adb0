"""Embedding a data set and scoring how well it is ranked, without any attack."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.data.errors import PixelError
from robustdml.data.images import ImageSet
from robustdml.data.loading import ahead
from robustdml.deep_metric import DeepMetric
from robustdml.metrics import cluster, nmi, retrieval_scores
from robustdml.ranking import Gallery, precise

BATCH = 128


def device_of(metric: DeepMetric) -> torch.device:
    """Where the embedder's weights live; the CPU if it has none."""
    return next((p.device for p in metric.embedder.parameters()), torch.device("cpu"))


def images_on(data: ImageSet, index: Int[Tensor, "b"], device: torch.device) -> Float[Tensor, "b c h w"]:
    """Images of a data set on a device.

    Raises:
        PixelError: if pixels leave [0, 1] by more than 1e-6: the budget of every attack would be meaningless.
    """
    return checked(data.name, data.batch(index)).to(device)


def checked(name: str, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """The images of a data set, if their pixels are in [0, 1].

    Raises:
        PixelError: if pixels leave [0, 1] by more than 1e-6: the budget of every attack would be meaningless.
    """
    if not len(images):
        return images
    low, high = float(images.min()), float(images.max())
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        raise PixelError(
            f"{name}: pixels must be in [0, 1], found {low:.4g} … {high:.4g}. Divide by the largest value in the "
            "data set, and put any mean/std normalisation inside the embedder (robustdml.models.normalise)."
        )
    return images


def embed_all(
    metric: DeepMetric,
    data: ImageSet,
    index: Int[Tensor, "n"],
    *,
    batch: int = BATCH,
    progress: Callable[[int], None] = lambda done: None,
) -> Float[Tensor, "n d"]:
    """Embeddings of the images at `index`, in evaluation mode."""
    device = device_of(metric)
    found = []
    for images in ahead(lambda rows: checked(data.name, data.batch(rows)), index.split(batch)):
        found.append(metric.embed(images.to(device)))
        progress(len(images))
    return torch.cat(found)


def own_rows(query: Int[Tensor, "q"], gallery: Int[Tensor, "n"]) -> Int[Tensor, "q"] | None:
    """Each query's own row in the gallery, by index; `None` if queries and gallery are disjoint.

    Raises:
        ValueError: if only some of the queries are in the gallery.
    """
    order = gallery.argsort()
    place = torch.searchsorted(gallery[order], query).clamp_max(len(gallery) - 1)
    rows = order[place]
    inside = gallery[rows] == query
    if not bool(inside.any()):
        return None
    if not bool(inside.all()):
        raise ValueError(
            f"{int(inside.sum())} of {len(query)} queries are also gallery items. Make the query set a subset of the "
            "gallery, or disjoint from it."
        )
    return rows


@dataclass(frozen=True)
class Evaluation:
    """Clean scores, as fractions.

    Attributes:
        scores: recall@1, recall@2, map, map_at_r, map_at_10, r_precision, nmi; of classifiers accuracy (recall@1 on
            class prototypes) and recall@2; of hybrids all of them.
        lonely: queries whose class has no other gallery item; left out of every mean but nmi.
        first: of every query, 1 if its first result is of its class, NaN if it is lonely.
    """

    scores: dict[str, float]
    first: Float[Tensor, "q"] = field(compare=False, repr=False)
    queries: int
    gallery: int
    classes: int
    lonely: int
    embedding: dict[str, float]


def evaluate(metric: DeepMetric, data: ImageSet, *, seed: int = 0) -> Evaluation:
    """Score the queries of the test split against its gallery, each query's own copy excluded by index."""
    gallery, queries, itself = ranked(metric, data, data.split.query)
    return evaluate_embeddings(metric, gallery, queries, data.labels[data.split.query], itself, seed=seed)


def ranked(
    metric: DeepMetric, data: ImageSet, query: Int[Tensor, "q"]
) -> tuple[Gallery, Float[Tensor, "q d"], Int[Tensor, "q"] | None]:
    """What some queries rank, their embeddings, and their own rows in the gallery if they are in it.

    Raises:
        ValueError: if a classifier is asked for classes that it has no score for.
    """
    if metric.ranks == "classes":
        return class_gallery(metric, data), embed_all(metric, data, query), None
    split = data.split
    z = embed_all(metric, data, split.gallery)
    itself = own_rows(query, split.gallery)
    itself = None if itself is None else itself.to(z.device)
    gallery = Gallery(z, data.labels.to(z.device)[split.gallery.to(z.device)])
    return gallery, z[itself] if itself is not None else embed_all(metric, data, query), itself


def class_gallery(metric: DeepMetric, data: ImageSet) -> Gallery:
    """One prototype per class.

    Raises:
        ValueError: if the data set has classes without one.
    """
    assert metric.prototypes is not None
    most = int(data.labels.max()) + 1 if len(data) else 0
    if most > len(metric.prototypes):
        raise ValueError(
            f"{data.name} has classes up to {most - 1} and the model scores {len(metric.prototypes)} of them. Measure "
            "a classifier on the data set it was trained for (leave out --data)."
        )
    classes = metric.prototypes.to(device_of(metric))
    return Gallery(classes, torch.arange(len(classes), device=classes.device))


def evaluate_embeddings(
    metric: DeepMetric,
    gallery: Gallery,
    queries: Float[Tensor, "q d"],
    query_labels: Int[Tensor, "q"],
    itself: Int[Tensor, "q"] | None,
    *,
    seed: int = 0,
) -> Evaluation:
    """The same for embeddings that exist already."""
    rows = None if itself is None else itself.to(gallery.z.device)
    labels = query_labels.to(gallery.z.device)
    scores = retrieval_scores(metric.distance, queries, labels, gallery.z, gallery.labels, itself=rows)
    classes = int(gallery.labels.unique().numel())
    named = scores.means()
    if metric.ranks == "classes":
        named = {"accuracy": named["recall@1"], "recall@1": named["recall@1"], "recall@2": named["recall@2"]}
    else:
        named |= {"nmi": nmi(gallery.labels.cpu(), cluster(gallery.z, classes, metric.distance, seed=seed))}
        if metric.prototypes is not None:
            named |= {"accuracy": accuracy(queries, labels, metric.prototypes.to(queries.device))}
    spread = collapse_statistics(metric, queries if metric.ranks == "classes" else gallery.z)
    return Evaluation(named, scores.recall_at(1).cpu(), len(queries), len(gallery.z), classes, scores.lonely, spread)


def accuracy(z: Float[Tensor, "q d"], labels: Int[Tensor, "q"], prototypes: Float[Tensor, "k d"]) -> float:
    """Share of images whose own class has the highest score; ties count as errors, as does a class without a score."""
    scores = precise(z) @ precise(prototypes).T
    known = labels < len(prototypes)
    own = labels.clamp_max(len(prototypes) - 1)[:, None]
    others = scores.scatter(1, own, -torch.inf).amax(dim=1)
    return float((known & (scores.gather(1, own)[:, 0] > others)).double().mean())


def collapse_statistics(metric: DeepMetric, z: Float[Tensor, "n d"], *, sample: int = 1000) -> dict[str, float]:
    """How far an embedding is from a single point, on `sample` rows spread over `z`.

    `mean_distance` is the mean over pairs in the model's own distance; `spread` the same if that distance is bounded,
    else the mean Euclidean distance over the mean norm; `effective_rank` the exponential of the entropy of the centred
    singular values (Roy and Vetterli, 2007), between 0 (a point) and the dimension.
    """
    rows = torch.linspace(0, len(z) - 1, min(sample, len(z)), device=z.device).long()
    some = z[rows].float()
    mean = spread = _mean_of_pairs(metric.distance.matrix(some, some))
    seen = metric.distance.place(some)
    if metric.distance.largest is None:
        spread = _mean_of_pairs(torch.cdist(seen, seen)) / max(float(seen.norm(dim=1).mean()), 1e-30)
    return {"mean_distance": mean, "spread": spread, "effective_rank": effective_rank(seen)}


def _mean_of_pairs(d: Float[Tensor, "n n"]) -> float:
    return float(d.sum() - d.diagonal().sum()) / max(1, len(d) * (len(d) - 1))


def effective_rank(z: Float[Tensor, "n d"]) -> float:
    """exp of the entropy of the normalised singular values of the centred rows; 0 if all rows are equal.

    NaN if a row is not finite.
    """
    if not bool(torch.isfinite(z).all()):
        return math.nan
    z = precise(z)  # in float32 the mean of equal rows need not equal them
    values = torch.linalg.svdvals(z - z.mean(dim=0))
    total = float(values.sum())
    if not total > 1e-7 * float(z.norm(dim=1).max().clamp_min(1e-30)):
        return 0.0
    share = values / total
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))
