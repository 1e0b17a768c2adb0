"""Defenses: how (adversarial) examples enter the training step."""

from robustdml.defenses.classification import AdversarialTraining
from robustdml.defenses.collapse import AdaptedAntiCollapse, AntiCollapse
from robustdml.defenses.defense import Defense
from robustdml.defenses.free import FreeTraining
from robustdml.defenses.minmax import AlternatingCollapse, AnchoredMinMax, MinMax, StoppedMinMax, TripletCollapse
from robustdml.defenses.mixture import Mixture, branches
from robustdml.defenses.plain import Plain
from robustdml.defenses.shift import AnchoredShiftTraining, ShiftSuppression, ShiftTraining
from robustdml.defenses.terms import PENALTIES, ClasswiseBarlow, Penalised, Penalty, SingularValues

DEFENSES: dict[str, type[Defense]] = {
    c.__name__: c
    for c in (
        Plain, ShiftTraining, ShiftSuppression, AnchoredShiftTraining, AntiCollapse, AdaptedAntiCollapse, MinMax,
        AnchoredMinMax, TripletCollapse, AlternatingCollapse, StoppedMinMax, FreeTraining, Mixture, Penalised,
        AdversarialTraining,
    )
}  # fmt: skip

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
