"""Attacks on rankings."""

from robustdml.attacks.attack import Attack, Outcome, Surrogate
from robustdml.attacks.goals import GOALS, Goal
from robustdml.attacks.scene import RetrievalSystem, Scene

__all__ = ["GOALS", "Attack", "Goal", "Outcome", "RetrievalSystem", "Scene", "Surrogate"]
