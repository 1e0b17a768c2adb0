"""Black-box search: what it minimises, what it costs, and that nothing depends on how images are grouped."""

import pytest
import torch

from robustdml.adversary import L2, Adversary, Linf, Nes, Noise, Pgd
from robustdml.adversary import nes as module
from robustdml.attacks import Attack
from robustdml.attacks.goals import DynamicWeight, FixedWeight, PreservingQuery
from robustdml.distance import Spherical
from robustdml.draws import Draws
from tests.adversary.test_pgd import attack, away, first_coordinate, middling
from tests.attacks.test_goals import INSTANCES, ROWS, toy
from tests.toys import blobs, generator, linear, network, unchanged

BALLS = pytest.mark.parametrize("ball", [Linf(8 / 255), L2(0.3)], ids=repr)
SMALL = Nes(4, 20, step_size=0.02)


@BALLS
def test_the_budget_is_never_exceeded(ball):
    embedder, images = linear(), blobs()[0]  # many pixels at the edge of the box
    found = attack(Adversary(ball, Nes(5, 6, step_size=0.5)), embedder, images, away(embedder, images))
    assert 0 < float(ball.norm(found - images).max()) <= ball.eps + 1e-14
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


@BALLS
def test_no_radius_leaves_the_images_as_they_are(ball):
    images = blobs()[0]
    none = type(ball)(0.0)
    assert torch.equal(attack(Adversary(none, SMALL), linear(), images, first_coordinate), images)


def test_it_goes_where_the_gradient_goes():
    embedder, images = linear(), middling()
    found = attack(Adversary(Linf(0.05), Nes(20, 400, step_size=0.01)), embedder, images, first_coordinate)
    exact = attack(Adversary(Linf(0.05), Pgd(20, 0.01)), embedder, images, first_coordinate)
    alike = ((found - images).sign() == (exact - images).sign()).double().mean()
    assert float(alike) > 0.95


def test_it_does_better_than_noise_and_worse_than_a_gradient():
    embedder, images = network(), blobs()[0]
    energy, unit = away(embedder, images), torch.arange(60)
    values = []
    for search in (Pgd(10, 0.02), Nes(10, 40, step_size=0.02), Noise()):
        found = attack(Adversary(Linf(0.1), search), embedder, images, energy)
        with torch.no_grad():
            values.append(float(energy(embedder.eval()(found), unit, 1).mean()))
    assert values == sorted(values)


@pytest.mark.parametrize("size", [1, 7, 60])
def test_neither_batch_size_nor_order_changes_an_image(size):
    embedder, images = network(), blobs()[0]
    adversary = Adversary(Linf(0.1), SMALL)
    expected = attack(adversary, embedder, images, away(embedder, images))
    found = torch.empty_like(images)
    for rows in torch.randperm(60, generator=generator()).split(size):
        found[rows] = attack(adversary, embedder, images[rows], away(embedder, images[rows]), rows)
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("rows", [7, 20, 1000])
def test_the_size_of_a_forward_pass_changes_nothing(rows, monkeypatch):
    embedder, images = network(), blobs()[0]
    expected = attack(Adversary(Linf(0.1), SMALL), embedder, images, away(embedder, images))
    monkeypatch.setattr(module, "ROWS", rows)
    found = attack(Adversary(Linf(0.1), SMALL), embedder, images, away(embedder, images))
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)


def test_no_call_is_larger_than_the_bound_and_none_asks_for_a_gradient():
    sizes = []

    def energy(pixels, unit, step):
        assert not torch.is_grad_enabled()
        sizes.append(len(pixels))
        return pixels.flatten(1).sum(dim=1)

    images = blobs()[0]
    Nes(2, 600)(energy, images, Linf(0.1), draws=Draws(0), index=torch.arange(60))
    assert max(sizes) <= module.ROWS
    assert sum(sizes) == 60 * Nes(2, 600).forwards == 60 * 3 * 600


def test_coupled_energies_see_every_image_once_in_each_call():
    seen = []

    def energy(pixels, unit, step):
        seen.append(unit.tolist())
        values = pixels.flatten(1).sum(dim=1)
        return values * values.mean()

    images = blobs()[0][:7]
    found = SMALL(energy, images, Linf(0.1), coupled=True, draws=Draws(0), index=torch.arange(7))
    assert seen == [list(range(7))] * (5 * 20)
    assert float(energy(found, torch.arange(7), 0).mean()) < float(energy(images, torch.arange(7), 0).mean())


def test_where_images_do_not_influence_each_other_coupling_finds_as_much():
    """Its draws are others, since it holds one member of the population at a time."""

    def energy(pixels, unit, step):
        return (pixels - 0.3).square().flatten(1).sum(dim=1)

    images, index = blobs()[0], torch.arange(60)
    found = [SMALL(energy, images, Linf(0.1), coupled=c, draws=Draws(0), index=index) for c in (True, False)]
    before, coupled, alone = (float(energy(x, index, 0).mean()) for x in (images, *found))
    assert coupled < before
    assert coupled - alone == pytest.approx(0, abs=0.1 * (before - alone))


def test_a_coupled_search_holds_the_noise_of_one_pair_at_a_time():
    held = []

    class Watched(Draws):
        def normal(self, purpose, index, shape=(), dtype=torch.float32):
            held.append((purpose, shape))
            return super().normal(purpose, index, shape, dtype)

    SMALL(lambda x, unit, step: x.flatten(1).sum(1), blobs()[0][:3], Linf(0.1), coupled=True, draws=Watched(0),
          index=torch.arange(3))  # fmt: skip
    assert {shape for _, shape in held} == {(1, 1, 4, 4)}
    assert len({purpose for purpose, _ in held}) == len(held) == 5 * 10


def test_wide_images_get_enlarged_noise():
    seen = []

    def energy(pixels, unit, step):
        seen.append(pixels)
        return pixels.flatten(1).sum(dim=1)

    x = torch.full((1, 3, 70, 96), 0.5)
    Nes(2, 2, sigma=0.01)(energy, x, Linf(0.4), draws=Draws(0), index=torch.arange(1))
    noise = (seen[0][0] - 0.5).numpy()
    assert (noise[:, :, 0::3] == noise[:, :, 2::3]).all()  # 96 = 3 * 32
    assert len({*noise[0, 0].round(6)}) == 32
    assert len({*noise[0, :, 0].round(6)}) == 32
    torch.testing.assert_close(seen[0][0] - 0.5, 0.5 - seen[0][1])


def test_the_network_is_left_as_it_was_found():
    embedder, images = network(), blobs()[0]
    check = unchanged(embedder)
    attack(Adversary(Linf(0.1), SMALL), embedder, images, away(embedder, images))
    check()


@pytest.mark.parametrize("goal", [*INSTANCES, PreservingQuery("raise", weight=DynamicWeight(3.0))], ids=repr)
def test_every_goal_can_be_pursued_without_gradients(goal):
    metric, scene, images = toy()
    outcome = Attack(goal, Adversary(Linf(0.1), Nes(8, 60, 0.03, 0.01)))(
        metric, scene, images, draws=Draws(0), index=ROWS
    )
    assert float((outcome.images - images).abs().max()) <= 0.1 + 1e-12
    energy, unit = goal.energy(scene, outcome.aims), torch.arange(5)
    assert float(energy(metric.embed(outcome.images), unit, 1).sum()) < float(energy(scene.clean, unit, 1).sum())


def test_a_coupled_goal_does_not_depend_on_the_size_of_a_forward_pass(monkeypatch):
    metric, scene, images = toy(Spherical())
    attack_it = Attack(PreservingQuery("lower", weight=DynamicWeight(3.0)), Adversary(Linf(0.3), SMALL))
    expected = attack_it(metric, scene, images, draws=Draws(0), index=ROWS).images
    monkeypatch.setattr(module, "ROWS", 20)
    torch.testing.assert_close(attack_it(metric, scene, images, draws=Draws(0), index=ROWS).images, expected)
    alone = Attack(PreservingQuery("lower", weight=FixedWeight()), Adversary(Linf(0.3), SMALL))
    assert not alone.goal.coupled


def test_an_energy_that_is_not_a_number_moves_nothing():
    images = blobs()[0]
    index = torch.arange(60)
    found = SMALL(lambda x, u, s: x.flatten(1).sum(1) * torch.nan, images, Linf(0.1), draws=Draws(0), index=index)
    assert torch.equal(found, images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 1}, r"even population of at least 2, got 1: its members come in pairs"),
        ({"population": 7}, "got 7"),
        ({"population": 0}, "got 0"),
        ({"steps": 1}, "Nes needs steps >= 2, got 1"),
        ({"sigma": 0.0}, "finite sigma > 0"),
        ({"step_size": -1.0}, "finite step_size >= 0"),
    ],
)
def test_settings_without_meaning_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Nes(**settings)
