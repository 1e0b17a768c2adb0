"""Projected gradient descent: closed forms, budgets, and what it must not touch."""

import pytest
import torch

from robustdml.adversary import L2, Adversary, Linf, Noise, Pgd, embed_tuples
from robustdml.distance import Spherical
from robustdml.draws import Draws
from robustdml.energies import shift
from robustdml.models.embedder import frozen
from tests.toys import blobs, constant, generator, linear, network, unchanged

BALLS = pytest.mark.parametrize("ball", [Linf(8 / 255), L2(0.3)], ids=repr)


def attack(adversary, embedder, images, energy, index=None):
    index = torch.arange(len(images)) if index is None else index
    return adversary(embedder, images, energy, draws=Draws(0), index=index)


def first_coordinate(z, unit, step):
    return z[:, 0]


def away(embedder, images, scale=1.0):
    """The energy of an embedding shift, multiplied by `scale`."""
    with frozen(embedder), torch.no_grad():
        clean = embedder(images)
    energy = shift(Spherical(), clean, lambda unit: torch.full_like(clean[unit], 1e-7))
    return lambda z, unit, step: scale * energy(z, unit, step)


def middling(n=5):
    """Images far enough from the box for a small ball to be the only bound."""
    return 0.4 + 0.2 * torch.rand(n, 1, 4, 4, generator=generator(), dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 7, 40])
def test_linf_on_a_linear_embedding_is_minus_eps_times_the_sign(steps):
    embedder, images, eps = linear(), middling(), 8 / 255
    w = embedder.layers[1].weight[0].detach().reshape(1, 1, 4, 4)
    found = attack(Adversary(Linf(eps), Pgd(steps, eps / 5)), embedder, images, first_coordinate)
    travelled = eps if steps in (1, 40) or steps >= 5 else steps * eps / 5
    torch.testing.assert_close(found, images - travelled * w.sign(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("steps", [1, 40])
def test_l2_on_a_linear_embedding_is_minus_eps_times_the_unit_vector(steps):
    embedder, images = linear(), middling()
    w = embedder.layers[1].weight[0].detach().reshape(1, 1, 4, 4)
    found = attack(Adversary(L2(0.1), Pgd(steps, 0.03)), embedder, images, first_coordinate)
    torch.testing.assert_close(found, images - 0.1 * w / w.norm(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("step_size", [0.007, 0.01, 0.5])
@BALLS
def test_the_budget_is_never_exceeded(ball, step_size, random_start, dtype):
    embedder, images = linear().to(dtype), blobs()[0].to(dtype)  # many pixels at the edge of the box
    found = attack(Adversary(ball, Pgd(9, step_size, random_start)), embedder, images, away(embedder, images))
    assert found.dtype == dtype
    assert float(ball.norm(found - images).max()) <= ball.eps + (1e-7 if dtype == torch.float32 else 1e-14)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert float((found - images).abs().max()) > 0


@BALLS
def test_a_single_step_uses_the_whole_radius(ball):
    embedder, images = linear(), middling()
    found = attack(Adversary(ball, Pgd(1, 1e-3)), embedder, images, first_coordinate)
    torch.testing.assert_close(ball.norm(found - images), torch.full((5,), ball.eps, dtype=torch.float64))


@pytest.mark.parametrize("search", [Pgd(5, 0.1), Pgd(1, 0.1), Pgd(5, 0.1, random_start=True), Noise()], ids=repr)
@pytest.mark.parametrize("ball", [Linf(0.0), L2(0.0)], ids=repr)
def test_no_radius_leaves_the_images_as_they_are(ball, search):
    embedder, images = linear(), blobs()[0]
    assert torch.equal(attack(Adversary(ball, search), embedder, images, first_coordinate), images)


def test_no_step_size_stays_at_the_start():
    embedder, images = linear(), blobs()[0]
    ball, index = Linf(0.1), torch.arange(60)
    with pytest.raises(ValueError, match="moves nothing"):
        Adversary(ball, Pgd(5, 0.0))
    with frozen(embedder):
        found = Pgd(5, 0.0, random_start=True)(
            lambda x, unit, step: first_coordinate(embedder(x), unit, step), images, ball, draws=Draws(0), index=index
        )
    assert torch.equal(found, ball.sample(images, draws=Draws(0), index=index))
    assert torch.equal(found, attack(Adversary(ball, Noise()), embedder, images, first_coordinate))


def test_an_energy_without_gradient_moves_nothing():
    embedder, images = constant(), blobs()[0]
    assert torch.equal(attack(Adversary(Linf(0.1), Pgd(5, 0.03)), embedder, images, first_coordinate), images)


@BALLS
def test_the_network_is_left_as_it_was_found(ball):
    embedder, images = network(), blobs()[0]
    embedder(images).sum().backward()
    embedder.layers[1].eval()
    check = unchanged(embedder)
    found = attack(Adversary(ball, Pgd(3, 0.01, random_start=True)), embedder, images, away(embedder, images))
    check()
    assert not found.requires_grad


def test_the_callers_images_are_not_written_to():
    images = blobs()[0]
    before = images.clone()
    attack(Adversary(Linf(0.1), Pgd(3, 0.05)), linear(), images, first_coordinate)
    assert torch.equal(images, before)


def test_an_attack_works_where_gradients_are_switched_off():
    embedder, images = linear(), middling()
    expected = attack(Adversary(Linf(0.1), Pgd(3, 0.05)), embedder, images, first_coordinate)
    with torch.no_grad():
        assert torch.equal(attack(Adversary(Linf(0.1), Pgd(3, 0.05)), embedder, images, first_coordinate), expected)


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e3, 1e8])
@BALLS
def test_the_scale_of_the_energy_does_not_matter(ball, scale):
    embedder, images = network().float(), blobs()[0].float()
    adversary = Adversary(ball, Pgd(1, 0.0))  # a second step may stand at a sign change, where rounding decides
    found = attack(adversary, embedder, images, away(embedder, images, scale))
    torch.testing.assert_close(found, attack(adversary, embedder, images, away(embedder, images)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [2.0**-27, 2.0**27])
@BALLS
def test_the_scale_of_the_embedding_does_not_matter(ball, scale):
    plain, scaled, images = linear(), linear(), blobs()[0]
    with torch.no_grad():
        scaled.layers[1].weight *= scale
    adversary = Adversary(ball, Pgd(6, 0.01))
    found = attack(adversary, scaled, images, away(scaled, images))
    torch.testing.assert_close(found, attack(adversary, plain, images, away(plain, images)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [1, 7, 60])
@pytest.mark.parametrize("random_start", [False, True])
@BALLS
def test_neither_batch_size_nor_order_changes_an_image(ball, random_start, size):
    embedder, images = network(), blobs()[0]
    adversary = Adversary(ball, Pgd(4, 0.01, random_start))
    expected = attack(adversary, embedder, images, away(embedder, images))
    order = torch.randperm(60, generator=generator())
    found = torch.empty_like(images)
    for rows in order.split(size):
        found[rows] = attack(adversary, embedder, images[rows], away(embedder, images[rows]), rows)
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=0)


def test_more_budget_does_not_help_the_defender():
    embedder, images = linear(), blobs()[0]
    energy = away(embedder, images)
    reached = []
    for eps in (0.0, 0.02, 0.05, 0.1, 0.3):
        found = attack(Adversary(Linf(eps), Pgd(20, eps / 10)), embedder, images, energy)
        reached.append(float(energy(embedder(found), torch.arange(60), 1).mean().detach()))
    assert reached == sorted(reached, reverse=True)


def test_many_steps_do_better_than_one_and_one_better_than_noise():
    embedder, images = network(), blobs()[0]
    energy, unit = away(embedder, images), torch.arange(60)
    values = []
    for search in (Pgd(20, 0.02), Pgd(1, 0.02), Noise()):
        found = attack(Adversary(Linf(0.1), search), embedder, images, energy)
        with frozen(embedder), torch.no_grad():
            values.append(float(energy(embedder(found), unit, 1).mean()))
    assert values == sorted(values)


def test_tuples_are_attacked_together_and_embedded_one_by_one():
    embedder, images = linear(), blobs()[0].unflatten(0, (30, 2))
    z = embed_tuples(embedder, images)
    assert torch.equal(z.flatten(0, 1), embedder(images.flatten(0, 1)))
    apart = attack(Adversary(Linf(0.1), Pgd(3, 0.03)), embedder, images, lambda z, unit, step: z[:, 0, 0] + z[:, 1, 0])
    flat = attack(Adversary(Linf(0.1), Pgd(3, 0.03)), embedder, images.flatten(0, 1), first_coordinate)
    torch.testing.assert_close(apart.flatten(0, 1), flat, atol=1e-14, rtol=0)


def counted(steps, values, saturation=1e-3):
    """Steps that a search takes on an energy with these means."""
    taken = []

    def energy(z, unit, step):
        taken.append(step)
        return 1e-9 * z.sum(dim=1) + values[step]

    attack(Adversary(Linf(0.1), Pgd(steps, 0.01, saturation=saturation)), linear(), blobs()[0], energy)
    return len(taken)


def test_a_saturated_search_ends_after_the_step_that_shows_it():
    assert counted(4, [5.0, 4.0, 3.0, 3.0]) == 4
    assert counted(6, [5.0, 4.0, 4.0005, 2.0, 1.0, 0.0]) == 3
    assert counted(6, [-1.0, 4.0, 4.0, 2.0, 1.0, 0.0]) == 1  # the value before the first is taken for -1
    assert counted(6, [4.0] * 6, saturation=None) == 6


def test_without_saturation_the_search_is_the_same():
    embedder, images = network(), blobs()[0]
    found = [
        attack(Adversary(Linf(0.1), Pgd(5, 0.03, saturation=s)), embedder, images, away(embedder, images))
        for s in (None, 1e-12)
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("coupled", [False, True])
def test_rows_that_have_arrived_are_not_looked_at_again(coupled):
    embedder, images = network(), blobs()[0]
    away_from = away(embedder, images)
    with frozen(embedder), torch.no_grad():
        goals = torch.linspace(-2.5, -1e-3, len(images), dtype=torch.float64)
    rows = []

    def plateau(z, unit, step):
        rows.append(len(unit))
        return away_from(z, unit, step).clamp_min(goals[unit])

    def found(saturation):
        adversary = Adversary(Linf(0.1), Pgd(5, 0.03, saturation=saturation))
        return adversary(embedder, images, plateau, coupled=coupled, draws=Draws(0), index=torch.arange(len(images)))

    saturated = found(1e-12)
    counts, rows[:] = rows[:], []
    torch.testing.assert_close(found(None), saturated, atol=1e-12, rtol=0)
    assert rows == [len(images)] * 5
    if coupled:
        assert counts == rows
    else:
        assert counts[0] == len(images)
        assert counts == sorted(counts, reverse=True)
        assert 0 < counts[-1] < len(images)


def test_a_search_ends_once_every_row_has_arrived():
    steps = []

    def flat(z, unit, step):
        steps.append(step)
        return 0 * z.sum(dim=1) + 4.0

    attack(Adversary(Linf(0.1), Pgd(6, 0.01, saturation=1e-7)), linear(), blobs()[0], flat)
    assert steps == [0]


@pytest.mark.parametrize("saturation", [0.0, -1e-7, float("nan")])
def test_a_saturation_must_be_positive(saturation):
    with pytest.raises(ValueError, match=rf"saturation > 0, or None to take all steps, got {saturation}"):
        Pgd(3, 0.1, saturation=saturation)


@pytest.mark.parametrize("steps", [0, -3])
def test_a_search_without_steps_is_refused(steps):
    with pytest.raises(ValueError, match=rf"Pgd needs steps >= 1, got {steps}\. For no attack at all use eps = 0"):
        Pgd(steps, 0.1)


@pytest.mark.parametrize("step_size", [-0.1, float("nan"), float("inf")])
def test_an_impossible_step_size_is_refused(step_size):
    with pytest.raises(ValueError, match=rf"Pgd needs a finite step_size >= 0, got {step_size}"):
        Pgd(3, step_size)
