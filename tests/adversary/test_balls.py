"""Balls: closed forms of projection, direction and sampling."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustdml.adversary import BALLS, L2, Linf
from robustdml.draws import Draws
from tests.toys import generator

ALL = pytest.mark.parametrize("ball", BALLS.values(), ids=lambda c: c.__name__)
RADII = st.floats(0, 1)
SPREADS = st.floats(0, 5)


def some(n=4, seed=0, dtype=torch.float64):
    return torch.rand(n, 2, 3, 3, generator=generator(seed), dtype=dtype)


def noise(n=4, seed=1):
    return torch.randn(n, 2, 3, 3, generator=generator(seed), dtype=torch.float64)


@ALL
@given(eps=RADII, spread=SPREADS)
def test_a_projected_point_is_in_ball_and_box(ball, eps, spread):
    centre = some()
    found = ball(eps).project(centre + spread * noise(), centre)
    assert float(ball(eps).norm(found - centre).max()) <= eps + 1e-14
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


@ALL
def test_the_budget_survives_rounding_to_float32(ball):
    centre = some(200, dtype=torch.float32)
    for eps in (1 / 255, 8 / 255, 0.3):
        found = ball(eps).project(centre + noise(200).float(), centre)
        assert float(ball(eps).norm(found - centre).max()) <= eps + 1e-7


@ALL
@given(eps=RADII)
def test_admissible_points_are_left_alone(ball, eps):
    centre = some()
    inside = ball(eps).project(centre + noise(), centre)
    torch.testing.assert_close(ball(eps).project(inside, centre), inside, atol=1e-14, rtol=0)
    assert torch.equal(ball(eps).project(centre, centre), centre)


@ALL
def test_norms_are_the_definition(ball):
    definition = {Linf: lambda d: max(map(abs, d)), L2: lambda d: math.sqrt(sum(v * v for v in d))}[ball]
    expected = [definition(d) for d in noise().flatten(1).tolist()]
    torch.testing.assert_close(ball(1.0).norm(noise()), torch.tensor(expected, dtype=torch.float64))


def test_linf_projection_clips_every_coordinate():
    centre = torch.tensor([0.05, 0.5, 0.98]).reshape(1, 1, 1, 3)
    far = torch.tensor([-1.0, 0.52, 3.0]).reshape(1, 1, 1, 3)
    expected = torch.tensor([0.0, 0.52, 1.0]).reshape(1, 1, 1, 3)
    torch.testing.assert_close(Linf(0.1).project(far, centre), expected)


def test_l2_projection_scales_the_displacement():
    centre, delta = torch.full((2, 2, 3, 3), 0.5, dtype=torch.float64), noise(2)
    found = L2(0.2).project(centre + delta, centre) - centre
    torch.testing.assert_close(found, 0.2 * delta / delta.flatten(1).norm(dim=1)[:, None, None, None])


@ALL
@given(eps=RADII, spread=SPREADS)
def test_clipping_needs_no_box(ball, eps, spread):
    clipped = ball(eps).clip(spread * noise())
    assert float(ball(eps).norm(clipped).max()) <= eps + 1e-14
    torch.testing.assert_close(ball(eps).clip(clipped), clipped, atol=1e-14, rtol=0)


@pytest.mark.parametrize("exponent", range(-30, 31, 5))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@ALL
def test_the_direction_does_not_depend_on_the_size_of_the_gradient(ball, exponent, dtype):
    gradient = noise().to(dtype)
    scaled = ball(1.0).direction(gradient * 10.0**exponent)
    torch.testing.assert_close(scaled, ball(1.0).direction(gradient), atol=1e-6, rtol=0)


@ALL
def test_directions_have_unit_size_and_ascend_fastest(ball):
    gradient, others = noise(), noise(4, seed=2)
    direction = ball(1.0).direction(gradient)
    torch.testing.assert_close(ball(1.0).norm(direction), torch.ones(4, dtype=torch.float64))
    rivals = others / ball(1.0).norm(others)[:, None, None, None]
    assert bool(((gradient * direction).sum((1, 2, 3)) >= (gradient * rivals).sum((1, 2, 3))).all())


@ALL
def test_no_gradient_gives_no_direction(ball):
    gradient = noise()
    gradient[1] = 0
    direction = ball(1.0).direction(gradient)
    assert float(direction[1].abs().max()) == 0
    assert torch.equal(direction[0], ball(1.0).direction(gradient[:1])[0])


@ALL
def test_samples_stay_in_ball_and_box_and_belong_to_their_index(ball):
    centre, index = some(50), torch.arange(50)
    found = ball(0.4).sample(centre, draws=Draws(0), index=index)
    assert float(ball(0.4).norm(found - centre).max()) <= 0.4 + 1e-14
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    part = torch.tensor([7, 3, 3])
    assert torch.equal(ball(0.4).sample(centre[part], draws=Draws(0), index=part), found[part])


@ALL
def test_tuples_of_images_are_sampled_one_by_one(ball):
    centre = torch.full((2, 3, 1, 4, 4), 0.5, dtype=torch.float64)
    found = ball(0.1).sample(centre, draws=Draws(0), index=torch.arange(2)) - centre
    sizes = ball(0.1).norm(found)
    assert sizes.shape == (2, 3)
    assert len(sizes.unique()) == 6
    assert float(sizes.max()) <= 0.1


def test_l2_samples_are_uniform_in_the_ball():
    n, dimension = 20_000, 3
    centre = torch.full((n, 1, 1, dimension), 0.5, dtype=torch.float64)
    delta = L2(0.2).sample(centre, draws=Draws(0), index=torch.arange(n)) - centre
    share = ((L2(0.2).norm(delta) / 0.2) ** dimension).sort().values  # uniform in [0, 1] if the volume is
    steps = torch.arange(1, n + 1, dtype=torch.float64) / n
    assert float((share - steps).abs().max()) < 1.95 / math.sqrt(n)  # Kolmogorov-Smirnov, p = 0.001
    directions = delta.flatten(1) / delta.flatten(1).norm(dim=1, keepdim=True)
    assert float(directions.mean(dim=0).abs().max()) < 5 / math.sqrt(3 * n)
    heights = (directions[:, 0] * 0.5 + 0.5).sort().values  # Archimedes: uniform on a sphere in three dimensions
    assert float((heights - steps).abs().max()) < 1.95 / math.sqrt(n)


def test_linf_samples_are_uniform_per_pixel():
    centre = torch.full((5000, 1, 1, 2), 0.5, dtype=torch.float64)
    delta = Linf(0.2).sample(centre, draws=Draws(0), index=torch.arange(5000)) - centre
    share = (delta.flatten() / 0.4 + 0.5).sort().values
    steps = torch.arange(1, 10_001, dtype=torch.float64) / 10_000
    assert float((share - steps).abs().max()) < 1.95 / 100


@ALL
@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf")])
def test_an_impossible_radius_is_refused(ball, eps):
    message = r"eps must be a finite number >= 0 \(a fraction of the \[0, 1\] pixel range, e\.g\. 8/255\), got "
    with pytest.raises(ValueError, match=message + str(eps)):
        ball(eps)
