"""Architectures: specifications that recipes name, and the embedders they build."""

from robustdml.models.small import (
    C2F2,
    C2F2Classifier,
    C2F2Hybrid,
    LeNet,
    LeNetClassifier,
    Model,
    Perceptron,
    Pixels,
    SmallConv,
)

MODELS: dict[str, type[Model]] = {
    c.__name__: c for c in (C2F2, LeNet, SmallConv, Pixels, C2F2Classifier, LeNetClassifier, Perceptron, C2F2Hybrid)
}

__all__ = [
    "C2F2",
    "MODELS",
    "C2F2Classifier",
    "C2F2Hybrid",
    "LeNet",
    "LeNetClassifier",
    "Model",
    "Perceptron",
    "Pixels",
    "SmallConv",
]
