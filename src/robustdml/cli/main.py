"""The command `robustdml`: finds the verb, and turns what goes wrong into a message and an exit code."""

import difflib
import importlib
import shlex
import sys

from robustdml import __version__, interruption
from robustdml.allocator import keep_freed_memory
from robustdml.cli import failures, processes, terminal
from robustdml.command import COMMAND

VERBS = {
    "demo": "the whole story on built-in digits in three minutes: train, attack, score, report",
    "train": "train a recipe into a run folder",
    "evaluate": "clean retrieval scores of a model",
    "attack": "one attack on a model",
    "benchmark": "a profile of attacks and the score ERS of a model",
    "diagnose": "how defenses change the gradients of triplets: tables and a figure, nothing trained",
    "report": "one self-contained HTML page from result files",
    "compare": "a table of runs, with published figures if wanted",
    "list": "recipes, losses, miners, distances, models, datasets, defenses, attacks, profiles, metrics, …",
    "data": "where a data set is looked for, what is there, and how to get what is missing",
    "doctor": "versions, devices, optional extras, data sets: is this installation healthy?",
}
EXAMPLES = (
    "robustdml demo",
    "robustdml train act-fashion-c2f2-quick",
    "robustdml benchmark runs/act-fashion-c2f2-quick --profile rob28",
    "robustdml report runs/act-fashion-c2f2-quick --out report.html",
)


def main(argv: list[str] | None = None) -> int:
    """Carry out one command and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if argv else failures.MISUSE
    if argv[0] == "--version":
        print(f"robustdml {__version__}")
        return 0
    COMMAND.set(shlex.join(["robustdml", *argv]))
    with interruption.listening(), terminal.plain_warnings(quiet="--quiet" in argv):
        try:
            if argv[0] not in VERBS:
                raise failures.UsageError(_unknown(argv[0]))
            keep_freed_memory()
            code: int = importlib.import_module(f"robustdml.cli.{argv[0]}").main(argv[1:])
            sys.stdout.flush()
            processes.leave(code)
            return code
        except (Exception, KeyboardInterrupt) as error:
            if "--debug" in argv and not isinstance(error, KeyboardInterrupt):
                raise
            return failures.answer(error)


def overview() -> str:
    """What `robustdml --help` prints."""
    lines = ["robustdml: train, attack, defend and measure image embeddings", "", "usage: robustdml VERB …", ""]
    lines += [f"  {verb:<10} {line}" for verb, line in VERBS.items()]
    lines += ["", "Options, defaults and examples of a verb: robustdml VERB --help", "", "examples:"]
    return "\n".join([*lines, *(f"  {example}" for example in EXAMPLES)])


def _unknown(verb: str) -> str:
    near = difflib.get_close_matches(verb, VERBS, n=2)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"there is no command {verb!r}.{hint} Known: {', '.join(VERBS)}."


if __name__ == "__main__":
    sys.exit(main())
