"""The command that this process carries out, for the provenance of its results."""

from contextvars import ContextVar

COMMAND: ContextVar[str] = ContextVar("command", default="python API")
"""As a person would type it; set by the command line."""
