"""What is said while a training run goes on."""

import math
import warnings


def check_finite(loss: float, step: int) -> None:
    """Stop at a loss that is not a number.

    Raises:
        FloatingPointError: with what to try.
    """
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss} at step {step}. Lower --optimiser.lr or set --clip 1.0; the last "
            "complete checkpoint is untouched."
        )


def check_weights(broken: list[str], step: int) -> None:
    """Stop before weights that are no numbers are kept.

    Args:
        broken: names of tensors with a NaN or an infinite number.

    Raises:
        FloatingPointError: with what to try.
    """
    if broken:
        raise FloatingPointError(
            f"{broken[0]} holds NaN or infinite numbers after step {step} ({len(broken)} tensors do), although the "
            "loss was finite. Lower --optimiser.lr, set --clip 1.0, or train with --precision fp32; the last complete "
            "checkpoint is untouched."
        )


def warn_of_collapse(entry: dict[str, float], rows: int) -> bool:
    """Say in words when the embedding shrinks to a point; rank attacks then move nothing and scores look good.

    Args:
        rows: of the batch that the monitors saw; fewer than four say nothing, since two always lie on a line.
    """
    if rows < 4 or not (entry["spread"] <= 0.01 or entry["effective_rank"] <= 1.5):  # NaN is not a collapse
        return False
    message = (
        f"the embedding is collapsing: at step {entry['step']:.0f} the mean distance between images is "
        f"{entry['mean_distance']:.3g} and the effective rank {entry['effective_rank']:.2g}. A collapsed model looks "
        "robust because nothing can be ranked. Try a weaker adversary, a lower learning rate or another miner."
    )
    warnings.warn(message, stacklevel=2)
    return True


def line(entry: dict[str, float], epochs: int) -> str:
    """A log entry in words."""
    left = entry["seconds"] * (epochs / max(entry["epoch"], 1e-9) - 1)
    return (
        f"epoch {entry['epoch']:.2f}/{epochs}  step {entry['step']}  loss {entry['loss']:.4f}  mean distance "
        f"{entry['mean_distance']:.3f}  effective rank {entry['effective_rank']:.1f}  {entry['seconds']:.0f} s, "
        f"about {left:.0f} s left"
    )
