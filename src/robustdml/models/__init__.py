"""Architectures: specifications that recipes name, and the embedders they build."""

from robustdml.models.backbones import Backbone
from robustdml.models.hybrid import HYBRIDS, BackboneHybrid, C2F2Hybrid
from robustdml.models.pretrained import Pretrainable, Pretrained
from robustdml.models.resnet import SmallResNet
from robustdml.models.small import (
    C2F2,
    C2F2Classifier,
    LeNet,
    LeNetClassifier,
    Model,
    Perceptron,
    Pixels,
    SmallConv,
)

MODELS: dict[str, type[Model]] = {
    c.__name__: c
    for c in (
        C2F2, LeNet, SmallConv, SmallResNet, Pixels, C2F2Classifier, LeNetClassifier, Perceptron, C2F2Hybrid, Backbone,
        BackboneHybrid,
    )
}  # fmt: skip

__all__ = [
    "C2F2", "HYBRIDS", "MODELS", "Backbone", "BackboneHybrid", "C2F2Classifier", "C2F2Hybrid", "LeNet",
    "LeNetClassifier", "Model", "Perceptron", "Pixels", "Pretrainable", "Pretrained", "SmallConv", "SmallResNet",
]  # fmt: skip
