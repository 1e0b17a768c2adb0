"""Losses: what a batch of embeddings is trained to do."""

from robustdml.losses.entropy import ClassLoss, CrossEntropy, Hybrid, prototypes
from robustdml.losses.tuples import Contrastive, Loss, Triplet, TripletLoss

LOSSES: dict[str, type] = {c.__name__: c for c in (Triplet, Contrastive, CrossEntropy, Hybrid)}

__all__ = [
    "LOSSES", "ClassLoss", "Contrastive", "CrossEntropy", "Hybrid", "Loss", "Triplet", "TripletLoss", "prototypes",
]  # fmt: skip
