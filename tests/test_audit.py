"""Self-checks: a sound model passes all of them, and each has a model that must trip it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from robustdml import audit
from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.attacks.goals import EmbeddingShift
from robustdml.benchmark import benchmark
from robustdml.data.images import ImageSet, Pixels, Split
from robustdml.deep_metric import DeepMetric
from robustdml.distance import Euclidean, Spherical
from robustdml.draws import Draws
from robustdml.models.embedder import Layers
from robustdml.profile import Measurement, Profile, nine_goals

SHAPE = (1, 4, 4)


def images_of(n=120, classes=6, top=255):
    """Classes of noisy patterns, so that a random network ranks far above chance."""
    rows = torch.arange(n)
    labels = rows % classes
    pattern = Draws(3).uniform("pattern", torch.arange(classes), SHAPE)[labels]
    noise = Draws(3).uniform("noise", rows, SHAPE)
    values = ((0.85 * pattern + 0.15 * noise) * 255).to(torch.uint8)
    return ImageSet("patterns", Pixels(values, top), labels, Split(rows, rows, rows), tuple(map(str, range(classes))))


def sound():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Layers(16, nn.Flatten(), nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 16))


def wrapped(*after, before=()):
    """The sound network with layers before or after it."""
    return Layers(16, *before, sound(), *after)


class ZeroGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient)


class Killer(nn.Module):
    """Passes embeddings and stops gradients."""

    def forward(self, z):
        return ZeroGradient.apply(z)


class NanGradient(nn.Module):
    """Its value is finite everywhere and its gradient nowhere."""

    def forward(self, z):
        return z + 0 * (z - z.detach()).abs().sqrt()


class Noisy(nn.Module):
    def forward(self, z):
        return z + 0.05 * torch.randn_like(z)


class AlwaysTraining(nn.Dropout):
    def train(self, mode=True):
        return super().train(True)


class Counting(nn.Module):
    """Changes a buffer at every forward pass."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, z):
        self.seen += 1
        return z


class BatchDependent(nn.Module):
    def forward(self, z):
        return z - z.mean(dim=0, keepdim=True)


class Constant(nn.Module):
    def forward(self, z):
        return torch.ones_like(z) + 0 * z


class Overflow(nn.Module):
    """NaN for embeddings larger than any clean one."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def forward(self, z):
        return torch.where(z.abs().amax(dim=1, keepdim=True) > self.limit, torch.nan, z)


PROFILE = Profile(
    "small", tuple(Measurement(n, g, Adversary(Linf(0.3), Pgd(4, 0.1))) for n, g in nine_goals(False).items())
)


def card_of(embedder, tmp_path, profile=PROFILE, distance=None):
    return benchmark(DeepMetric(embedder, distance or Spherical()), images_of(), profile, tmp_path)


def flags(card):
    return {f["name"] for f in card["flags"]}


def test_a_sound_model_raises_no_flag(tmp_path):
    card = card_of(sound(), tmp_path)
    assert not flags(card), card["flags"]
    assert not card["unreliable"]
    expected = {"eval_mode", "nondeterministic", "batch_independent", "collapse", "saturation", "weights_kept"}
    expected |= {"budget", "finite_embeddings", "rescore", "zero_gradient", "eps_zero"}
    assert set(card["checks"]) == expected
    assert all(c["ok"] and c["message"] for c in card["checks"].values())


@pytest.mark.parametrize(
    ("embedder", "expected"),
    [
        pytest.param(wrapped(Killer()), {"zero_gradient"}, id="zero gradients"),
        pytest.param(wrapped(NanGradient()), {"zero_gradient"}, id="NaN gradients"),
        pytest.param(wrapped(Noisy()), {"nondeterministic", "rescore", "eps_zero"}, id="random noise"),
        pytest.param(wrapped(AlwaysTraining(0.3)), {"eval_mode", "nondeterministic"}, id="dropout left on"),
        pytest.param(wrapped(Counting()), {"weights_kept"}, id="a buffer that moves"),
        pytest.param(wrapped(BatchDependent()), {"batch_independent"}, id="images that see each other"),
        pytest.param(wrapped(Constant()), {"collapse", "zero_gradient"}, id="a constant embedding"),
    ],
)
def test_a_broken_model_is_flagged(tmp_path, embedder, expected):
    card = card_of(embedder, tmp_path)
    assert expected <= flags(card), flags(card)
    assert card["unreliable"]


def test_a_model_that_answers_nan_to_an_attack_is_flagged(tmp_path):
    clean = sound()(images_of().batch(torch.arange(120))).detach().abs().amax()
    model = Layers(16, sound(), Overflow(float(clean) * 1.0001))
    assert "finite_embeddings" in flags(card_of(model, tmp_path))


def test_a_constant_embedding_scores_ten(tmp_path):
    """Ties count against it: zero on every component except the shift, which it cannot show."""
    card = card_of(wrapped(Constant()), tmp_path)
    assert card["ers"] == pytest.approx(10, abs=0.01)
    assert card["clean"]["recall@1"] == 0
    assert card["worst_case_recall@1"] == 0


def test_ers_is_refused_for_raw_euclidean_embeddings(tmp_path):
    card = card_of(sound(), tmp_path, distance=Euclidean())
    assert card["ers"] is None
    assert "unbounded" in card["ers_undefined"]


def test_an_attack_that_leaves_its_budget_is_flagged():
    x = torch.full((2, 1, 4, 4), 0.5)
    assert audit.budget_kept("ES", Linf(0.1), x, x + 0.1).ok
    assert not audit.budget_kept("ES", Linf(0.1), x, x + 0.11).ok
    assert not audit.budget_kept("ES", Linf(0.1), x + 0.45, x + 0.51).ok


def test_pixels_outside_the_box_stop_the_benchmark(tmp_path):
    with pytest.raises(ValueError, match=r"pixels must be in \[0, 1\]"):
        benchmark(DeepMetric(sound(), Spherical()), images_of(top=100), PROFILE, tmp_path)
    assert not list(tmp_path.glob("benchmark-*"))


def test_a_model_in_training_mode_is_measured_in_evaluation_mode_and_left_as_it_was(tmp_path):
    model = wrapped(nn.Dropout(0.5)).train()
    card = card_of(model, tmp_path)
    assert model.training
    assert card["model_was_in_training_mode"]
    assert not flags(card)


def test_eight_bit_images_keep_the_budget_and_move_by_less_than_a_level():
    clean = torch.randint(0, 256, (5, 1, 4, 4)) / 255
    ball = Linf(7.3 / 255)
    found = ball.sample(clean, draws=Draws(0), index=torch.arange(5))
    stored = audit.in_8_bit(found, ball, clean)
    assert torch.allclose(stored * 255, (stored * 255).round(), atol=1e-4)
    assert float((stored - found).abs().max()) < 1 / 255
    assert float((stored - clean).abs().max()) <= ball.eps + 1e-6


def test_the_worse_of_two_checks_is_reported():
    good, bad = audit.Check("a", True, 5.0, ""), audit.Check("a", False, 0.1, "")
    assert good.worse(bad) is bad
    assert bad.worse(good) is bad
    assert good.worse(replace(good, value=6.0)).value == 6.0


def test_zero_eps_leaves_every_score(tmp_path):
    nothing = tuple(replace(m, adversary=Adversary(Linf(0.0), Pgd(2, 0.1))) for m in PROFILE.measurements)
    card = card_of(sound(), tmp_path, replace(PROFILE, measurements=nothing))
    for name, attack in card["attacks"].items():
        for score, before in attack["before"].items():
            tolerance = 1.01 / 120 if score == "prank" else 1e-5
            assert attack["after"][score] == pytest.approx(before, abs=tolerance), (name, score)


def test_a_profile_with_a_plain_noise_search_needs_no_gradient(tmp_path):
    from robustdml.adversary import Noise

    one = Profile("noise", (Measurement("ES", EmbeddingShift(), Adversary(Linf(0.1), Noise())),))
    card = card_of(wrapped(Killer()), tmp_path, one)
    assert "zero_gradient" not in card["checks"]
    assert card["ers"] is None
    assert "ten components" in card["ers_undefined"]
