"""One perturbation for all images: how it is found, and that it is one."""

import pytest
import torch

from robustdml.adversary import L2, Linf, Pgd, Universal, eccv_schedule
from robustdml.draws import Draws
from tests.adversary.test_pgd import middling
from tests.toys import blobs

WEIGHTS = torch.linspace(-1, 1, 16, dtype=torch.float64).view(1, 4, 4)


def energy(pixels, unit, step):
    return (pixels * WEIGHTS).flatten(1).sum(dim=1)


def run(search, images, ball=Linf(0.1), index=None):  # noqa: B008 (frozen)
    return search(energy, images, ball, draws=Draws(0), index=torch.arange(len(images)) if index is None else index)


@pytest.mark.parametrize("search", [Universal(9, 0.02), Pgd(9, 0.02, universal=True)], ids=repr)
def test_all_images_are_moved_alike_inside_the_box(search):
    images = middling()
    moved = run(search, images) - images
    torch.testing.assert_close(moved, moved[:1].expand_as(moved))
    torch.testing.assert_close(moved[0], -0.1 * WEIGHTS.sign())


@pytest.mark.parametrize("search", [Universal(9, 0.02), Pgd(9, 0.02, True, universal=True)], ids=repr)
@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.3)], ids=repr)
def test_the_budget_is_kept_at_the_edge_of_the_box(search, ball):
    images = blobs()[0]
    found = run(search, images, ball)
    assert float(ball.norm(found - images).max()) <= ball.eps + 1e-14
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_only_every_other_image_is_looked_at():
    seen = set()

    def watched(pixels, unit, step):
        seen.update(unit.tolist())
        return energy(pixels, unit, step)

    Universal(3)(watched, blobs()[0], Linf(0.1), draws=Draws(0), index=torch.arange(60))
    assert seen == set(range(0, 60, 2))


def test_a_shared_random_start_is_one_draw():
    images = middling()
    moved = run(Pgd(1, 0.0, random_start=True, universal=True), images, Linf(0.0)) - images
    assert torch.equal(moved, torch.zeros_like(images))
    start = run(Pgd(2, 0.0, random_start=True, universal=True), images, index=torch.arange(5, 10)) - images
    torch.testing.assert_close(start, start[:1].expand_as(start))
    assert float(start.abs().max()) > 0


def test_the_schedule_of_a_radius():
    for eps, steps, step_size in ((0.002, 1, 0.002), (0.01, 10, 1 / 255), (0.03, 15, 1 / 255), (0.06, 20, 0.006),
                                  (0.1, 20, 0.01), (0.3, 30, 0.01), (1 / 255, 1, 1 / 255)):  # fmt: skip
        found = eccv_schedule(eps)
        assert (found.steps, found.step_size) == (steps, pytest.approx(step_size))


@pytest.mark.parametrize(
    ("settings", "message"), [({"steps": 0}, "steps >= 1"), ({"step_size": -1.0}, "step_size >= 0")]
)
def test_settings_without_meaning_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Universal(**settings)
