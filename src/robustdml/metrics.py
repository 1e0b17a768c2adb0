"""Retrieval metrics: one number per query, all from one streamed pass over queries x gallery."""

import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.distance import Distance
from robustdml.ranking import BUDGET, distances_to, others_before, precise, query_blocks

FEW = 64
"""Class size up to which the items before each match are counted; beyond, whole rankings are sorted."""
IN_FLIGHT = 2
"""Blocks that wait to be sorted and scored while the next is computed."""


@dataclass(frozen=True, eq=False)
class RetrievalScores:
    """Per-query scores. Queries without another item of their class have NaN everywhere and are counted.

    Attributes:
        first: 0-based rank of the first item of the query's class.
        r_precision: share of the class among the first R items, R = other items of the class.
        ap: average precision over the whole ranking.
        ap_at_r: average precision cut at R, divided by R.
        ap_at_10: the same cut at 10 whatever R is (RobRank's "mAP@R").
    """

    first: Float[Tensor, "q"]
    r_precision: Float[Tensor, "q"]
    ap: Float[Tensor, "q"]
    ap_at_r: Float[Tensor, "q"]
    ap_at_10: Float[Tensor, "q"]

    @property
    def lonely(self) -> int:
        """Queries whose class has no other item; they are left out of every mean."""
        return int(self.first.isnan().sum())

    def recall_at(self, k: int) -> Float[Tensor, "q"]:
        """1 where an item of the class is among the first k, NaN for lonely queries."""
        return torch.where(self.first.isnan(), torch.nan, (self.first < k).to(self.first.dtype))

    def means(self, ks: tuple[int, ...] = (1, 2)) -> dict[str, float]:
        """Means over the queries that are not lonely, as fractions."""
        named = {f"recall@{k}": self.recall_at(k) for k in ks}
        named |= {"map": self.ap, "map_at_r": self.ap_at_r, "map_at_10": self.ap_at_10, "r_precision": self.r_precision}
        return {name: float(values.nanmean()) for name, values in named.items()}


def average_precision(matches: np.ndarray, cut: int) -> np.ndarray:
    """(1/cut) sum_{j <= cut} rel_j P_j for rankings given as match indicators [q, n] (bool), P_j = precision at j."""
    top = matches[:, :cut]
    precision = np.cumsum(top, axis=1, dtype=np.int32) / np.arange(1, top.shape[1] + 1, dtype=np.float32)
    return np.einsum("qj,qj->q", precision, top, dtype=np.float64) / cut


def _order(d: Tensor, same: Tensor, resolution: float) -> np.ndarray:
    """Match indicators in ranking order [q, n]; among ties the other classes come first.

    Distance and match bit share one integer key, so that a plain value sort (vectorised in numpy) orders both. `d` is
    used up.
    """
    d.sub_(d.amin(dim=1, keepdim=True)).div_(max(resolution, torch.finfo(d.dtype).tiny))  # a gallery of zeros has 0
    d.add_(0.382)  # round numbers such as 0.5 would lie on the edge between two keys, and rounding would part them
    keys = d.clamp_(max=2.0**52).to(torch.int64).mul_(2).add_(same)
    if d.device.type != "cpu":
        return (keys.sort(dim=1).values & 1).bool().cpu().numpy()
    array = keys.numpy()
    array.sort(axis=1)
    array &= 1
    return array.astype(bool)


def retrieval_scores(
    distance: Distance,
    queries: Float[Tensor, "q d"],
    query_labels: Int[Tensor, "q"],
    gallery: Float[Tensor, "n d"],
    gallery_labels: Int[Tensor, "n"],
    *,
    itself: Int[Tensor, "q"] | None = None,
    budget: int = BUDGET,
) -> RetrievalScores:
    """Rank the gallery for every query and score the rankings.

    Args:
        itself: each query's own row in the gallery, which it does not retrieve.
        budget: bytes for one block of queries x gallery.
    """
    ranked = _Ranked(distance, queries, query_labels, gallery, gallery_labels, itself, budget)
    if len(queries) and int(gallery_labels.unique(return_counts=True)[1].max()) <= FEW:
        return RetrievalScores(*torch.from_numpy(_by_counting(ranked)).unbind(0))
    found: deque[Future[np.ndarray]] = deque()
    finished: list[np.ndarray] = [np.zeros((5, 0))]
    with ThreadPoolExecutor() as others:  # numpy sorts and scores one block while torch computes the next
        for d, same, resolution in _blocks(ranked):
            found.append(others.submit(lambda d, same, r: _of_order(_order(d, same, r)), d, same, resolution))
            if len(found) > IN_FLIGHT:
                finished.append(found.popleft().result())
    finished += [future.result() for future in found]
    return RetrievalScores(*torch.from_numpy(np.concatenate(finished, axis=1)).unbind(0))


def ranking_matches(
    distance: Distance,
    queries: Float[Tensor, "q d"],
    query_labels: Int[Tensor, "q"],
    gallery: Float[Tensor, "n d"],
    gallery_labels: Int[Tensor, "n"],
    *,
    itself: Int[Tensor, "q"] | None = None,
) -> np.ndarray:
    """Which places of each ranking hold the query's class [q, n], for metrics of one's own."""
    blocks = _blocks(_Ranked(distance, queries, query_labels, gallery, gallery_labels, itself, BUDGET))
    return np.concatenate([_order(d, same, resolution) for d, same, resolution in blocks])


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Who ranks whom: the arguments of `retrieval_scores`."""

    distance: Distance
    queries: Float[Tensor, "q d"]
    query_labels: Int[Tensor, "q"]
    gallery: Float[Tensor, "n d"]
    gallery_labels: Int[Tensor, "n"]
    itself: Int[Tensor, "q"] | None
    budget: int


def _blocks(of: _Ranked) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Distances, same-class masks and resolution by blocks of queries; the own row is infinitely far and no match."""
    to_gallery = distances_to(of.distance, of.gallery)
    resolution = of.distance.resolution(precise(of.gallery))
    for block in query_blocks(len(of.queries), len(of.gallery), copies=3 * (IN_FLIGHT + 2), budget=of.budget):
        d = to_gallery(of.queries[block])
        same = of.query_labels[block, None] == of.gallery_labels[None, :]
        if of.itself is not None:
            rows = torch.arange(len(d), device=d.device)
            d[rows, of.itself[block]] = torch.inf
            same[rows, of.itself[block]] = False
        yield d, same, resolution


def _by_counting(of: _Ranked) -> np.ndarray:
    """The five scores [5, q] where classes are small: count what comes before each match, and sort nothing."""
    by_label = of.gallery_labels.argsort(stable=True)
    labels = of.gallery_labels[by_label]
    start = torch.searchsorted(labels, of.query_labels)
    size = torch.searchsorted(labels, of.query_labels, right=True) - start
    order = size.argsort()  # queries whose classes are equally large share a block, so that little is padding
    to_gallery, resolution = of.distance.against(of.gallery.float()), of.distance.resolution(precise(of.gallery))
    longest = float(torch.stack([of.queries.norm(dim=1).amax(), of.gallery.norm(dim=1).amax()]).amax())
    scores = np.empty((5, len(order)))
    for block in query_blocks(len(order), len(of.gallery), copies=2, budget=of.budget):
        rows = order[block]
        place = start[rows, None] + torch.arange(max(1, int(size[rows].max())), device=rows.device)[None, :]
        own = by_label[place.clamp_max(len(labels) - 1)]
        counted = place < (start + size)[rows, None]
        left_out = own = torch.where(counted, own, own[:, :1])
        if of.itself is not None:
            counted &= own != of.itself[rows, None]
            left_out = torch.cat([own, of.itself[rows, None]], dim=1)
            matches_first = counted.byte().argsort(dim=1, descending=True, stable=True)[:, : int(counted.sum(1).max())]
            own, counted = own.gather(1, matches_first), counted.gather(1, matches_first)
        d, others = others_before(
            of.distance, of.queries[rows], of.gallery, own, left_out, to_gallery=to_gallery, size=longest,
            resolution=resolution,
        )  # fmt: skip
        nearest_first = d.masked_fill(~counted, torch.inf).argsort(dim=1)
        counted, others = counted.gather(1, nearest_first), others.gather(1, nearest_first)
        relevant = counted.sum(dim=1)
        query, which = counted.nonzero(as_tuple=True)
        scores[:, rows.cpu().numpy()] = _score(
            relevant.cpu().numpy(), query.cpu().numpy(), (others[counted] + which).cpu().numpy()
        )
    return scores


def _of_order(matches: np.ndarray) -> np.ndarray:
    """The five scores [5, q] of rankings given as match indicators [q, n]."""
    flat = np.flatnonzero(matches)
    query = flat // matches.shape[1]
    return _score(matches.sum(axis=1), query, flat - query * matches.shape[1])


def _score(relevant: np.ndarray, query: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The five scores [5, q] from the matches per query [q], and the query and 0-based place of each match."""
    start = np.concatenate([[0], np.cumsum(relevant)[:-1]])
    precision = (np.arange(len(query)) - start[query] + 1) / (place + 1)
    inside = (place < relevant[query]).astype(np.float64)

    def summed(values: np.ndarray) -> np.ndarray:
        """Per query; meaningless, and masked below, where there is no match."""
        return np.add.reduceat(np.append(values, 0.0), start)

    first = np.append(place, 0)[start]
    scores = np.stack(
        [
            first,
            summed(inside) / np.maximum(relevant, 1),
            summed(precision) / np.maximum(relevant, 1),
            summed(precision * inside) / np.maximum(relevant, 1),
            summed(precision * (place < 10)) / 10,
        ]
    )
    return np.where(relevant > 0, scores, np.nan)


def nmi(labels: Int[Tensor, "n"], clusters: Int[Tensor, "n"]) -> float:
    """Mutual information of two partitions over the mean of their entropies, in [0, 1]; 1 if both are trivial."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(labels.cpu().numpy(), clusters.cpu().numpy()))


def cluster(z: Float[Tensor, "n d"], num_clusters: int, distance: Distance, *, seed: int = 0) -> Int[Tensor, "n"]:
    """k-means assignments, one run with a fixed seed, of embeddings as the distance sees them."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    points = distance.place(z.float())
    means = KMeans(min(num_clusters, len(points)), n_init=1, random_state=seed, max_iter=25)
    with warnings.catch_warnings():  # fewer distinct points than clusters: a collapse, which the scores show
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = means.fit(points.cpu().numpy())
    return torch.from_numpy(fitted.labels_).long()
