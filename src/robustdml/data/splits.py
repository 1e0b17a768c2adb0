"""Cutting a data set into parts."""

from dataclasses import replace

import torch

from robustdml.data.images import ImageSet, Split
from robustdml.draws import Draws


def hold_out(data: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet | None]:
    """Training images without, and validation images with, a share of the training split.

    Whole classes are held out if the data set is zero-shot, else images. Validation images are query set and gallery.
    """
    if share == 0:
        return data, None
    train = data.split.train
    if data.zero_shot:
        unit = data.labels[train].unique()
        member = data.labels[train]
    else:
        unit = member = train
    order = Draws(seed, "validation").bits("hold out", unit).argsort()
    chosen = unit[order[: max(2, round(share * len(unit)))]]
    held = torch.isin(member, chosen)
    rest, validation = train[~held], train[held]
    if len(rest) < 2 or len(validation) < 2:
        raise ValueError(
            f"{data.name}: a validation share of {share} of {len(train)} training images leaves {len(rest)} to "
            f"train on and {len(validation)} to validate with. Choose another --validation.share."
        )
    kept = replace(data, split=Split(rest, data.split.query, data.split.gallery))
    return kept, replace(data, split=Split(rest, validation, validation))
