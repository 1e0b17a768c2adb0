"""Mining by angles."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.distance import Distance, Spherical
from robustdml.draws import Draws
from robustdml.mining.triplets import RandomTriplet
from robustdml.types import Triplets


@dataclass(frozen=True)
class WideAngle:
    """Triplets that see a positive pair from the negative under a wide angle, for batches of any composition.

    arctan(|a - p| / (2 |n - (a + p)/2|)) > `degrees` of unit vectors (Wang et al., ICCV 2017). As many as rows are
    drawn, with replacement; `RandomTriplet` takes their place where there are none. They are the triplets that
    pml:AngularMiner lists, from inner products alone.
    """

    degrees: float = 20.0

    def candidates(self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"]) -> Int[Tensor, "m 3"]:
        """All triplets of a wide angle."""
        with torch.no_grad():
            unit = Spherical().place(z)
            products = unit @ unit.T
        same = labels[:, None] == labels[None, :]
        a, p = torch.nonzero(same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), as_tuple=True)
        squares = products.diagonal()
        pair = products[a, p]
        apart = squares[a] + squares[p] - 2 * pair
        middle = (squares[a] + squares[p] + 2 * pair) / 4
        to_middle = squares[None, :] - products[a] - products[p] + middle[:, None]
        wide = apart[:, None].clamp_min(0) > (2 * math.tan(math.radians(self.degrees))) ** 2 * to_middle.clamp_min(0)
        row, negative = torch.nonzero(wide & ~same[a], as_tuple=True)
        return torch.stack([a[row], p[row], negative], dim=1)

    def __call__(
        self, z: Float[Tensor, "b d"], labels: Int[Tensor, "b"], distance: Distance, *, draws: Draws, index: Tensor
    ) -> Triplets:
        """Mine a batch."""
        found = self.candidates(z, labels)
        if len(found) == 0:
            return RandomTriplet()(z, labels, distance, draws=draws, index=index)
        taken = draws.integers("triplet", index[:1], len(found), (len(labels),))[0]
        return Triplets(*found[taken].unbind(dim=1))
