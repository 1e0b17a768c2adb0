"""Goals of attackers, one file per kind of goal."""

from robustdml.attacks.goals.candidate import Candidate
from robustdml.attacks.goals.goal import Goal
from robustdml.attacks.goals.matching import Mismatch, TopOut
from robustdml.attacks.goals.mismatch import TargetedMismatch
from robustdml.attacks.goals.misrank import Misrank
from robustdml.attacks.goals.query import Query
from robustdml.attacks.goals.shift import EmbeddingShift

GOALS: dict[str, type[Goal]] = {
    c.__name__: c for c in (Candidate, Query, TargetedMismatch, EmbeddingShift, Misrank, Mismatch, TopOut)
}

__all__ = ["GOALS", "Candidate", "EmbeddingShift", "Goal", "Mismatch", "Misrank", "Query", "TargetedMismatch", "TopOut"]
