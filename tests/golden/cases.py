"""How golden tests are parametrised and how recorded draws are injected."""

import torch

from robustdml.distance import Cosine, Euclidean, Spherical
from robustdml.draws import Draws

DISTANCE = {"C": Cosine(), "E": Euclidean(), "N": Spherical()}


def for_each(finder):
    """Run the test once for every case that `finder(golden)` names in the file of its module."""

    def mark(test):
        test.cases = finder
        return test

    return mark


class Recorded(Draws):
    """Hands out what the published run drew, by purpose; anything else is an error."""

    def __init__(self, **by_purpose):
        super().__init__(0)
        object.__setattr__(self, "by_purpose", by_purpose)

    def under(self, *parts):
        return self

    def bits(self, purpose, index, shape=()):
        raise KeyError(f"no recorded draw for {purpose!r}")

    def integers(self, purpose, index, high, shape=()):
        return self.by_purpose[purpose].reshape(len(index), *shape)

    def uniform(self, purpose, index, shape=(), dtype=torch.float32):
        return self.by_purpose[purpose].reshape(len(index), *shape).to(dtype)

    def permutation(self, purpose, index, n):
        return self.by_purpose[purpose]

    def normal(self, purpose, index, shape=(), dtype=torch.float32):
        rows, table = self.by_purpose[purpose]  # asked for some images at a time
        place = (index[:, None] == rows).int().argmax(dim=1)
        return table[place].reshape(len(index), *shape).to(dtype)


class GivenTriplets:
    """A miner that finds the recorded triplets."""

    def __init__(self, triplets):
        self.triplets = triplets

    def __call__(self, z, labels, distance, *, draws, index):
        return self.triplets
