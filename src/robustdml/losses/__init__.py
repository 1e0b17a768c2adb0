"""Losses: what a batch of embeddings is trained to do."""

from robustdml.losses.tuples import Contrastive, Loss, Triplet, TripletLoss

LOSSES: dict[str, type] = {"Triplet": Triplet, "Contrastive": Contrastive}

__all__ = ["LOSSES", "Contrastive", "Loss", "Triplet", "TripletLoss"]
