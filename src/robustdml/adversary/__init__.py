"""Adversaries: a ball of admissible perturbations and a search inside it."""

from robustdml.adversary.adversary import Adversary, Search, embed_tuples
from robustdml.adversary.balls import BALLS, L2, Ball, Linf
from robustdml.adversary.noise import Noise
from robustdml.adversary.pgd import Pgd

SEARCHES: dict[str, type[Search]] = {"Pgd": Pgd, "Noise": Noise}

__all__ = ["BALLS", "L2", "SEARCHES", "Adversary", "Ball", "Linf", "Noise", "Pgd", "Search", "embed_tuples"]
