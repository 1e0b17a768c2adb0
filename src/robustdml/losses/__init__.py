"""Losses: what a batch of embeddings is trained to do."""

from typing import cast

from robustdml.losses.borrowed import Pml, pml_loss
from robustdml.losses.contrastive import Contrastive
from robustdml.losses.entropy import ClassLoss, CrossEntropy, Hybrid, prototypes
from robustdml.losses.frozen import FrozenPrototypes
from robustdml.losses.gil import Gil
from robustdml.losses.infonce import InfoNce
from robustdml.losses.lifted import LiftedStructure
from robustdml.losses.loss import Loss, MinedLoss, TripletLoss
from robustdml.losses.margin import Margin
from robustdml.losses.npair import NPair
from robustdml.losses.quadruplet import Quadruplet
from robustdml.losses.rhomboid import Rhomboid
from robustdml.losses.similarity import MultiSimilarity
from robustdml.losses.snr import Snr
from robustdml.losses.triplet import Triplet
from robustdml.plugins import collected

LOSSES = cast(dict[str, type[Loss]], collected(__name__, Loss))
"""By the name of the class; a file beside this one adds its own."""

__all__ = [
    "LOSSES", "ClassLoss", "Contrastive", "CrossEntropy", "FrozenPrototypes", "Gil", "Hybrid", "InfoNce",
    "LiftedStructure", "Loss", "Margin", "MinedLoss", "MultiSimilarity", "NPair", "Pml", "Quadruplet", "Rhomboid",
    "Snr", "Triplet", "TripletLoss", "pml_loss", "prototypes",
]  # fmt: skip
