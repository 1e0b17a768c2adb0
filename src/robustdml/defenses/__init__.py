"""Defenses: how (adversarial) examples enter the training step."""

from typing import cast

from robustdml.defenses.benign import Benign
from robustdml.defenses.classification import AdversarialTraining
from robustdml.defenses.collapse import AdaptedAntiCollapse, AntiCollapse
from robustdml.defenses.decoupled import CollapseAware, RoleAscent
from robustdml.defenses.defense import Defense
from robustdml.defenses.destinations import Constant, Destination, Gradual, Sampled
from robustdml.defenses.free import FreeTraining, Replay
from robustdml.defenses.manipulation import HardnessManipulation
from robustdml.defenses.minmax import AlternatingCollapse, AnchoredMinMax, MinMax, StoppedMinMax, TripletCollapse
from robustdml.defenses.mixture import Mixture, branches
from robustdml.defenses.plain import Plain
from robustdml.defenses.schedule import Growing
from robustdml.defenses.shift import AnchoredShiftTraining, ShiftSuppression, ShiftTraining
from robustdml.defenses.teacher import TeacherMatching
from robustdml.defenses.terms import PENALTIES, ClasswiseBarlow, Penalised, Penalty, SingularValues
from robustdml.plugins import collected

DEFENSES = cast(dict[str, type[Defense]], collected(__name__, Defense))
"""By the name of the class; a file beside this one adds its own."""

DESTINATIONS: dict[str, type[Destination]] = {c.__name__: c for c in (Sampled, Constant, Gradual)}

__all__ = [
    "DEFENSES",
    "DESTINATIONS",
    "PENALTIES",
    "AdaptedAntiCollapse",
    "AdversarialTraining",
    "AlternatingCollapse",
    "AnchoredMinMax",
    "AnchoredShiftTraining",
    "AntiCollapse",
    "Benign",
    "ClasswiseBarlow",
    "CollapseAware",
    "Constant",
    "Defense",
    "Destination",
    "FreeTraining",
    "Gradual",
    "Growing",
    "HardnessManipulation",
    "MinMax",
    "Mixture",
    "Penalised",
    "Penalty",
    "Plain",
    "Replay",
    "RoleAscent",
    "Sampled",
    "ShiftSuppression",
    "ShiftTraining",
    "SingularValues",
    "StoppedMinMax",
    "TeacherMatching",
    "TripletCollapse",
    "branches",
]
