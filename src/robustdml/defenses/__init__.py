"""Defenses: how (adversarial) examples enter the training step."""

from typing import cast

from robustdml.defenses.classification import AdversarialTraining
from robustdml.defenses.collapse import AdaptedAntiCollapse, AntiCollapse
from robustdml.defenses.defense import Defense
from robustdml.defenses.free import FreeTraining
from robustdml.defenses.minmax import AlternatingCollapse, AnchoredMinMax, MinMax, StoppedMinMax, TripletCollapse
from robustdml.defenses.mixture import Mixture, branches
from robustdml.defenses.plain import Plain
from robustdml.defenses.shift import AnchoredShiftTraining, ShiftSuppression, ShiftTraining
from robustdml.defenses.terms import PENALTIES, ClasswiseBarlow, Penalised, Penalty, SingularValues
from robustdml.plugins import collected

DEFENSES = cast(dict[str, type[Defense]], collected(__name__, Defense))
"""By the name of the class; a file beside this one adds its own."""

__all__ = [
    "DEFENSES",
    "PENALTIES",
    "AdaptedAntiCollapse",
    "AdversarialTraining",
    "AlternatingCollapse",
    "AnchoredMinMax",
    "AnchoredShiftTraining",
    "AntiCollapse",
    "ClasswiseBarlow",
    "Defense",
    "FreeTraining",
    "MinMax",
    "Mixture",
    "Penalised",
    "Penalty",
    "Plain",
    "ShiftSuppression",
    "ShiftTraining",
    "SingularValues",
    "StoppedMinMax",
    "TripletCollapse",
    "branches",
]
