"""Goals of attackers, one file per kind of goal."""

from typing import cast

from robustdml.attacks.goals.agnostic import Agnostic
from robustdml.attacks.goals.candidate import Candidate
from robustdml.attacks.goals.class_mean import LeaveClass
from robustdml.attacks.goals.goal import Goal
from robustdml.attacks.goals.matching import Mismatch, TopOut
from robustdml.attacks.goals.misclassify import Misclassify
from robustdml.attacks.goals.mismatch import TargetedMismatch
from robustdml.attacks.goals.misrank import Misrank
from robustdml.attacks.goals.order import Order
from robustdml.attacks.goals.preserving import DynamicWeight, FixedWeight, PreservingOrder, PreservingQuery, Weight
from robustdml.attacks.goals.query import Query
from robustdml.attacks.goals.shift import EmbeddingShift
from robustdml.plugins import collected

GOALS = cast(dict[str, type[Goal]], collected(__name__, Goal))
"""By the name of the class; a file beside this one adds its own."""
WEIGHTS: dict[str, type[Weight]] = {"FixedWeight": FixedWeight, "DynamicWeight": DynamicWeight}

__all__ = [
    "GOALS",
    "WEIGHTS",
    "Agnostic",
    "Candidate",
    "DynamicWeight",
    "EmbeddingShift",
    "FixedWeight",
    "Goal",
    "LeaveClass",
    "Misclassify",
    "Mismatch",
    "Misrank",
    "Order",
    "PreservingOrder",
    "PreservingQuery",
    "Query",
    "TargetedMismatch",
    "TopOut",
    "Weight",
]
