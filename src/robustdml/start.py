"""The weights that a training begins with."""

from pathlib import Path

from robustdml.data.errors import DataError
from robustdml.models import Pretrainable, Pretrained
from robustdml.models.embedder import Embedder, fill
from robustdml.recipe import Recipe
from robustdml.runs import WEIGHTS, checkpoint, load_weights, read_weights


def begin(embedder: Embedder, recipe: Recipe) -> None:
    """Put the weights that `recipe.start` names into a freshly built embedder.

    Raises:
        DataError: if they are missing, damaged, of another network, or cannot be downloaded.
    """
    if recipe.start is None:
        return
    if not isinstance(recipe.start, Pretrained):
        saved = checkpoint(Path(recipe.start.path))
        load_weights(embedder, read_weights(saved.folder / WEIGHTS), saved.folder / WEIGHTS, saved.recipe)
        return
    assert isinstance(recipe.model, Pretrainable)  # the recipe has checked it
    file = recipe.start.file
    tensors = None if file is None else read_weights(Path(file))
    try:
        found = recipe.model.published(embedder, tensors)
    except ValueError as error:
        raise DataError(str(error) if file is None else f"{file}: {error}") from error
    fill(embedder, found)
