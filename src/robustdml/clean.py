"""Clean scores as a result file."""

from pathlib import Path

from robustdml import audit
from robustdml.data.images import ImageSet
from robustdml.deep_metric import DeepMetric
from robustdml.evaluate import device_of, evaluate
from robustdml.files import write_json
from robustdml.runs import now, provenance
from robustdml.scorecard import bootstrap
from robustdml.serial import Json

SCHEMA = 1
SMALL_GALLERY = 100


def write_evaluation(
    metric: DeepMetric, data: ImageSet, out: Path, *, seed: int = 0, about: Json | None = None, write: bool = True
) -> Json:
    """Score the test split and write `evaluation.json` into `out`.

    Args:
        about: what else the file should say (name, defense, loss, model).
        write: whether this process writes; one of several does.

    Returns:
        The content of the file.
    """
    made_with = provenance(seed, device_of(metric)) | {"weights": audit.weights_digest(metric.embedder)}
    found = evaluate(metric, data, seed=seed)
    value: Json = {
        "schema": SCHEMA,
        "clean": found.scores,
        "clean_interval": {"recall@1": bootstrap(found.first.numpy(), seed)},
        "queries": found.queries,
        "gallery": found.gallery,
        "classes": found.classes,
        "lonely_queries": found.lonely,
        "dataset": data.name,
        "distance": type(metric.distance).__name__,
        "ranks": metric.ranks,
        "embedding": found.embedding,
        **(about or {}),
        "seed": seed,
        "provenance": made_with | {"end": now(), "data": data.fingerprint()},
    }
    if write:
        write_json(out / "evaluation.json", value)
    return value


def remarks(card: Json) -> list[str]:
    """What a reader of clean or robust scores must know about the data behind them."""
    found = []
    if card["gallery"] < SMALL_GALLERY and card["ranks"] == "gallery":
        found.append(
            f"the gallery has only {card['gallery']} images: scores of so few are coarse, and ranks in percent more so"
        )
    longer = [name for name, attack in card.get("attacks", {}).items() if "head" in attack]
    if longer:
        found.append(
            f"1 % of {card['gallery']} gallery images is too few for the targets of {', '.join(longer)}: they are "
            "drawn from as many of the nearest as are needed"
        )
    if card["classes"] < 2:
        found.append("all gallery images are of one class: every ranking is right, and recall says nothing")
    if card["lonely_queries"]:
        found.append(
            f"{card['lonely_queries']} of {card['queries']} queries have no other image of their class in the gallery "
            "and are left out of every recall"
        )
    if card.get("model_was_in_training_mode"):
        found.append("the model came in training mode and was measured in evaluation mode")
    return found
