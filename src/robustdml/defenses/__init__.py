"""Defenses: how (adversarial) examples enter the training step."""

from robustdml.defenses.classification import AdversarialTraining
from robustdml.defenses.collapse import AntiCollapse
from robustdml.defenses.defense import Defense
from robustdml.defenses.plain import Plain
from robustdml.defenses.shift import ShiftTraining

DEFENSES: dict[str, type[Defense]] = {c.__name__: c for c in (Plain, ShiftTraining, AntiCollapse, AdversarialTraining)}

__all__ = ["DEFENSES", "AdversarialTraining", "AntiCollapse", "Defense", "Plain", "ShiftTraining"]
