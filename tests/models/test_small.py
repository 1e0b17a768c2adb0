"""Small networks: shapes they accept, widths they promise."""

import pytest
import torch

from robustdml.models import C2F2, MODELS, C2F2Hybrid, LeNet, LeNetClassifier, SmallConv

FOR_28 = list(MODELS.values())
SQUARE = [(C2F2, 4), (MODELS["C2F2Classifier"], 4), (C2F2Hybrid, 4), (LeNet, 16), (LeNetClassifier, 16), (SmallConv, 2)]


@pytest.mark.parametrize("model", FOR_28, ids=lambda c: c.__name__)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_embedding_has_the_promised_width(model, channels):
    embedder = model().build((channels, 28, 28))
    assert embedder(torch.rand(2, channels, 28, 28)).shape == (2, embedder.dim)


@pytest.mark.parametrize(("model", "smallest"), SQUARE, ids=lambda v: getattr(v, "__name__", str(v)))
def test_the_smallest_accepted_image_works_and_the_next_smaller_is_refused(model, smallest):
    embedder = model().build((1, smallest, smallest))
    assert embedder(torch.rand(2, 1, smallest, smallest)).shape == (2, embedder.dim)
    side = smallest - 1
    message = (
        rf"{model.__name__} needs square images of at least {smallest}x{smallest}, got {side}x{side}\. Give the folder"
    )
    with pytest.raises(ValueError, match=message):
        model().build((1, side, side))


@pytest.mark.parametrize(("model", "smallest"), SQUARE, ids=lambda v: getattr(v, "__name__", str(v)))
def test_images_that_are_not_square_are_refused(model, smallest):
    with pytest.raises(ValueError, match=rf"needs square images of at least {smallest}x{smallest}, got 28x32"):
        model().build((1, 28, 32))


@pytest.mark.parametrize("side", [5, 7, 29])
def test_odd_sides_lose_their_last_row_in_pooling(side):
    assert C2F2(8).build((1, side, side))(torch.rand(1, 1, side, side)).shape == (1, 8)


@pytest.mark.parametrize("model", FOR_28, ids=lambda c: c.__name__)
def test_every_weight_trains_and_is_reproducible_from_the_global_seed(model):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = model().build((1, 28, 28))
        torch.manual_seed(3)
        again = model().build((1, 28, 28))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters()))
    assert len(first.parameter_groups()["trunk"]) == len(list(first.parameters()))


def test_published_sizes():
    def weights(model):
        return sum(p.numel() for p in model.build((1, 28, 28)).parameters())

    assert weights(C2F2()) == 832 + 51_264 + 3_212_288 + 524_800
    assert weights(LeNet()) == 520 + 25_050 + 400_500 + 64_128


def test_both_heads_of_a_hybrid_read_one_representation():
    embedder = C2F2Hybrid(8, 5).build((1, 8, 8)).eval()
    images = torch.rand(3, 1, 8, 8)
    representation, embedding, scores = embedder.heads(images)
    assert representation.shape == (3, 1024)
    assert scores.shape == (3, 5)
    assert torch.equal(torch.cat([embedding, scores], dim=1), embedder(images))
    assert torch.equal(embedding, embedder.embedding_head(representation))
