"""Adversarially robust deep metric learning: train, attack, defend and measure image embeddings."""

__version__ = "0.1.0"
