"""Miners: which rows of a batch play positive and negative for each anchor."""

from robustdml.mining.borrowed import PmlMiner, pml_miner
from robustdml.mining.miner import (
    Miner,
    anchor_distances,
    anchors_of,
    draw_one,
    fall_back,
    need_pairs,
    other_class,
    partner,
    same_class,
)
from robustdml.mining.pairs import DistanceWeighted, Hardest, Random, SemiHard, SoftHard
from robustdml.mining.switched import Switched
from robustdml.mining.triplets import RandomTriplet

MINERS: dict[str, type[Miner]] = {
    c.__name__: c for c in (Random, SemiHard, SoftHard, DistanceWeighted, Hardest, RandomTriplet, Switched, PmlMiner)
}

__all__ = [
    "MINERS", "DistanceWeighted", "Hardest", "Miner", "PmlMiner", "Random", "RandomTriplet", "SemiHard", "SoftHard",
    "Switched", "anchor_distances", "anchors_of", "draw_one", "fall_back", "need_pairs", "other_class", "partner",
    "pml_miner", "same_class",
]  # fmt: skip
