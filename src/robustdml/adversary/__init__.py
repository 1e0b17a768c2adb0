"""Adversaries: a ball of admissible perturbations and a search inside it."""

from robustdml.adversary.adversary import Adversary, Search, embed_tuples, forwards_of
from robustdml.adversary.balls import BALLS, L2, Ball, Linf
from robustdml.adversary.in_turn import InTurn
from robustdml.adversary.nes import Nes
from robustdml.adversary.noise import Noise
from robustdml.adversary.pgd import Pgd, eccv_schedule
from robustdml.adversary.universal import Universal

SEARCHES: dict[str, type[Search]] = {
    "Pgd": Pgd,
    "Noise": Noise,
    "Nes": Nes,
    "Universal": Universal,
    "InTurn": InTurn,
}

__all__ = [
    "BALLS",
    "L2",
    "SEARCHES",
    "Adversary",
    "Ball",
    "InTurn",
    "Linf",
    "Nes",
    "Noise",
    "Pgd",
    "Search",
    "Universal",
    "eccv_schedule",
    "embed_tuples",
    "forwards_of",
]
