"""What a retrieval system shows to an attacker."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from robustdml.distance import Distance, ToRows
from robustdml.ranking import Gallery, Rankings, distances_to, nearest_is_same_class, precise

TOP_SHARE = 0.01
"""Share of the gallery from whose head CA-, QA- and FOA draw their targets."""


def rows_of(table: Tensor, unit: Int[Tensor, "n"]) -> Tensor:
    """`table[unit]`, without a copy where every unit stands for itself."""
    in_order = len(unit) == len(table) and bool((unit[:1] == 0).all()) and bool((unit.diff() == 1).all())
    return table if in_order else table[unit]


@dataclass(frozen=True, eq=False)
class RetrievalSystem:
    """A gallery under a distance, with everything that is constant for all attacks on it."""

    distance: Distance
    gallery: Gallery

    @cached_property
    def to_gallery(self) -> ToRows:
        """Differentiable distances to the gallery, in the precision of its embeddings."""
        return self.distance.against(self.gallery.z)

    @cached_property
    def to_gallery_precisely(self) -> Callable[[Float[Tensor, "m d"]], Float[Tensor, "m n"]]:
        """Distances precise enough to decide ranks."""
        return distances_to(self.distance, self.gallery.z)

    @cached_property
    def to_class_means(self) -> tuple[Int[Tensor, "c"], ToRows]:
        """The classes of the gallery, and differentiable distances to the mean embedding of each."""
        classes, members, counts = self.gallery.labels.unique(return_inverse=True, return_counts=True)
        placed = self.distance.place(self.gallery.z)
        sums = placed.new_zeros(len(classes), placed.shape[1]).index_add(0, members, placed)
        return classes, self.distance.against(sums / counts[:, None])

    @cached_property
    def resolution(self) -> float:
        """Distances closer than this are tied."""
        return self.distance.resolution(precise(self.gallery.z))

    @property
    def topmost(self) -> int:
        """Length of the head of a ranking: 1 % of the gallery, at least one item."""
        return max(1, int(TOP_SHARE * len(self.gallery.z)))

    def scene(self, clean: Float[Tensor, "b d"], labels: Int[Tensor, "b"], itself: Int[Tensor, "b"] | None) -> "Scene":
        """The scene for some clean embeddings; `itself` are their own gallery rows, if they have any."""
        d = self.to_gallery_precisely(clean)
        others = d if itself is None else d.scatter(1, itself[:, None], torch.inf)
        nearest = others.topk(self.topmost, dim=1, largest=False, sorted=True).indices
        return Scene(self, clean, labels, itself, d, nearest)


@dataclass(frozen=True, eq=False)
class Scene:
    """A retrieval system as b attacked images meet it; computed once and shared by all goals of a profile.

    Attributes:
        clean: embeddings of the attacked images before the attack.
        itself: their own rows in the gallery, `None` if they are not in it.
        distances: clean distances to the whole gallery, own row included.
        nearest: the head of each clean ranking, nearest first, own row excluded.
    """

    system: RetrievalSystem
    clean: Float[Tensor, "b d"]
    labels: Int[Tensor, "b"]
    itself: Int[Tensor, "b"] | None
    distances: Float[Tensor, "b n"]
    nearest: Int[Tensor, "b k"]
    _rankings: WeakIdKeyDictionary = field(default_factory=WeakIdKeyDictionary, repr=False)

    def of(self, unit: Int[Tensor, "m"]) -> "Scene":
        """The scene of some of the images, in any order and as often as asked."""
        clean, labels, distances, nearest = (
            rows_of(table, unit) for table in (self.clean, self.labels, self.distances, self.nearest)
        )
        return Scene(
            self.system, clean, labels, None if self.itself is None else rows_of(self.itself, unit), distances, nearest
        )

    def head(self, length: int) -> Int[Tensor, "b k"]:
        """The nearest others: `nearest`, or in a small gallery `length` of them, as far as there are so many."""
        longer = min(length, self.size - (self.itself is not None))
        if longer <= self.nearest.shape[1]:
            return self.nearest
        others = self.without_itself(self.distances, torch.inf)
        return others.topk(longer, dim=1, largest=False, sorted=True).indices

    def rankings(self, aims: Int[Tensor, "b m"]) -> Rankings:
        """Sorted distances of gallery rows to the gallery; energy and score of one attack share them.

        They are kept for as long as `aims` is.
        """
        if aims not in self._rankings:
            self._rankings[aims] = Rankings.of(self.system.to_gallery_precisely, self.gallery.z, aims)
        return self._rankings[aims]

    @property
    def distance(self) -> Distance:
        """The distance that ranks."""
        return self.system.distance

    @property
    def gallery(self) -> Gallery:
        """What is ranked."""
        return self.system.gallery

    @property
    def size(self) -> int:
        """Number of gallery items."""
        return len(self.gallery.z)

    @cached_property
    def same_class(self) -> Bool[Tensor, "b n"]:
        """Gallery items of the attacked image's class, own row included."""
        return self.labels[:, None] == self.gallery.labels[None, :]

    def without_itself(self, values: Tensor, fill: float | bool) -> Tensor:
        """A copy of [b n] values with the own row replaced."""
        return values if self.itself is None else values.scatter(1, self.itself[:, None], fill)

    def precise_distances(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b n"]:
        """Distances to the gallery that decide ranks; those of the clean embeddings are there already."""
        return self.distances if z is self.clean else self.system.to_gallery_precisely(z)

    def recalls(self, z: Float[Tensor, "b d"], ks: tuple[int, ...]) -> list[Float[Tensor, "b"]]:
        """recall@k of query embeddings for each k: 1 or 0, NaN where the gallery has no other item of the class."""
        d = self.without_itself(self.precise_distances(z), torch.inf)
        same = self.without_itself(self.same_class, False)
        defined = same.any(dim=1)
        hits = [nearest_is_same_class(d, same, self.system.resolution, k) for k in ks]
        return [torch.where(defined, hit.to(z.dtype), torch.nan) for hit in hits]

    def recall(self, z: Float[Tensor, "b d"], k: int = 1) -> Float[Tensor, "b"]:
        """recall@k of query embeddings."""
        return self.recalls(z, (k,))[0]
