"""Distances against their definitions."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustdml.distance import DISTANCES, PIECE, Cosine, Dot, Euclidean, Leading, Spherical
from tests.toys import generator

COORDINATES = st.floats(-10, 10).map(lambda v: round(v, 3))
METRICS = [Euclidean(), Spherical(), Cosine()]


def unit(u):
    length = max(math.sqrt(sum(x * x for x in u)), 1e-12)
    return [x / length for x in u]


def euclidean(u, v, offset=0.0):
    return math.sqrt(sum((x - y + offset) ** 2 for x, y in zip(u, v)))


def inner(u, v):
    return sum(x * y for x, y in zip(u, v))


LITERAL = {
    Leading(3, Spherical()): lambda u, v, offset=0.0: euclidean(unit(u[:3]), unit(v[:3]), offset),
    Euclidean(): euclidean,
    Spherical(): lambda u, v, offset=0.0: euclidean(unit(u), unit(v), offset),
    Cosine(): lambda u, v, offset=0.0: 1 - inner(unit(u), unit(v)),
    Dot(): lambda u, v, offset=0.0: -inner(u, v),
}
ALL = pytest.mark.parametrize("distance", LITERAL, ids=repr)
OF_METRICS = pytest.mark.parametrize("distance", METRICS, ids=repr)


def some(rows, dim=5, seed=0):
    return torch.randn(rows, dim, generator=generator(seed), dtype=torch.float64)


def test_every_distance_of_the_library_is_tested_against_its_definition():
    assert {type(d) for d in LITERAL} == set(DISTANCES.values())


@ALL
def test_matrix_is_the_definition(distance):
    a, b = some(4), some(6, seed=1)
    expected = [[LITERAL[distance](u, v) for v in b.tolist()] for u in a.tolist()]
    torch.testing.assert_close(distance.matrix(a, b), torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


@ALL
def test_pairs_are_the_definition_with_the_published_offset(distance):
    a, b = some(4), some(4, seed=1)
    expected = [LITERAL[distance](u, v, 1e-6) for u, v in zip(a.tolist(), b.tolist())]
    torch.testing.assert_close(distance.pairs(a, b), torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


@ALL
def test_leading_dimensions_are_a_batch(distance):
    a, b = some(12).reshape(3, 4, 5), some(6, seed=1).reshape(3, 2, 5)
    expected = torch.stack([distance.matrix(u, v) for u, v in zip(a, b)])
    torch.testing.assert_close(distance.matrix(a, b), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        distance.pairs(a, a.flip(0)).flatten(), distance.pairs(a.flatten(0, 1), a.flip(0).flatten(0, 1))
    )


@ALL
def test_against_a_fixed_set_equals_the_matrix(distance):
    a, b = some(4), some(6, seed=1)
    torch.testing.assert_close(distance.against(b)(a), distance.matrix(a, b), atol=1e-14, rtol=0)


@ALL
def test_a_nudge_is_added_to_the_second_argument(distance):
    a, b, nudge = unit(some(1)[0].tolist()), unit(some(1, seed=1)[0].tolist()), [0.1, -0.2, 0.0, 0.3, 0.1]
    moved = [y + n for y, n in zip(b, nudge)]
    found = distance.pairs(*(torch.tensor([v], dtype=torch.float64) for v in (a, b, nudge)))
    if isinstance(distance, Leading):
        a, moved = unit(a[:3]), [y + n for y, n in zip(unit(b[:3]), nudge)]
    expected = (
        euclidean(a, moved, 1e-6)
        if isinstance(distance, (Euclidean, Spherical, Leading))
        else LITERAL[distance](a, moved)
    )
    assert abs(float(found) - expected) < 1e-12


@ALL
@given(u=st.lists(COORDINATES, min_size=4, max_size=4), v=st.lists(COORDINATES, min_size=4, max_size=4))
def test_pairs_are_symmetric_up_to_the_offset(distance, u, v):
    a, b = (torch.tensor([w], dtype=torch.float64) for w in (u, v))
    assert abs(float(distance.pairs(a, b) - distance.pairs(b, a))) <= 2e-6 * math.sqrt(4) + 1e-12


@ALL
def test_the_matrix_is_symmetric(distance):
    a, b = some(4), some(6, seed=1)
    torch.testing.assert_close(distance.matrix(a, b), distance.matrix(b, a).T, atol=1e-13, rtol=0)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_where_embeddings_coincide(distance, dtype):
    z = some(3).to(dtype).requires_grad_()
    for value in (distance.matrix(z, z.detach()).sum(), distance.pairs(z, z.detach()).sum()):
        (gradient,) = torch.autograd.grad(value, z)
        assert bool(torch.isfinite(gradient).all())


@OF_METRICS
def test_the_matrix_has_no_gradient_at_coincidence(distance):
    z = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(distance.matrix(z, z.detach()).sum(), z)
    assert float(gradient.abs().max()) < 1e-6


@pytest.mark.parametrize("distance", [Euclidean(), Spherical()], ids=repr)
def test_the_offset_gives_pairs_a_gradient_at_coincidence(distance):
    z = torch.tensor([[3.0, -4.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(distance.pairs(z, z.detach()).sum(), z)
    assert float(gradient.abs().max()) > 0.01


@pytest.mark.parametrize("distance", LITERAL, ids=repr)
def test_a_zero_embedding_has_finite_distances_and_gradients(distance):
    z = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    for value in (distance.matrix(z, some(4, 3)), distance.pairs(z, some(2, 3))):
        assert bool(torch.isfinite(value).all())
        assert bool(torch.isfinite(torch.autograd.grad(value.sum(), z)[0]).all())


@OF_METRICS
def test_a_set_is_at_no_distance_from_itself_and_never_below_zero(distance):
    z = some(50).float()
    d = distance.matrix(z, z)
    assert float(d.min()) >= -1e-6
    assert float(distance.matrix(z.double(), z.double()).diagonal().max()) < 1e-7


@pytest.mark.parametrize("scale", [1e-6, 0.5, 3.0, 1e6])
def test_distances_scale_as_their_definition_says(scale):
    a, b = some(4), some(6, seed=1)
    for on_the_sphere in (Spherical(), Cosine()):
        torch.testing.assert_close(on_the_sphere.matrix(scale * a, b), on_the_sphere.matrix(a, b), atol=1e-9, rtol=0)
        torch.testing.assert_close(on_the_sphere.pairs(scale * a, a), on_the_sphere.pairs(a, a), atol=1e-9, rtol=0)
    scaled = Euclidean().matrix(scale * a, scale * b)
    torch.testing.assert_close(scaled, scale * Euclidean().matrix(a, b), atol=0, rtol=1e-12)
    torch.testing.assert_close(Dot().matrix(scale * a, b), scale * Dot().matrix(a, b), atol=0, rtol=1e-12)


def test_distances_on_the_sphere_end_at_two():
    u = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    for distance in (Spherical(), Cosine()):
        assert abs(float(distance.matrix(u, -3 * u)) - 2) < 1e-12


def test_spherical_and_cosine_order_alike():
    a, b = some(3), some(20, seed=1)
    assert torch.equal(Spherical().matrix(a, b).argsort(dim=1), Cosine().matrix(a, b).argsort(dim=1))


@ALL
def test_the_resolution_follows_the_scale_of_the_distance(distance):
    b = some(20)
    growth = distance.resolution(10 * b) / distance.resolution(b)
    assert growth == pytest.approx({Euclidean(): 10, Dot(): 100}.get(distance, 1))


@pytest.mark.parametrize("distance", [c() for c in DISTANCES.values()], ids=repr)
def test_a_weighted_sum_is_the_same_with_and_without_a_gradient(distance):
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 5, generator=g, dtype=torch.float64) for n in (4, 30))

    def weigh(d):
        return (d > d.mean()).to(d.dtype) * 0.3

    to = distance.against(b)
    with_gradient = to.weighted_sum(a.clone().requires_grad_(), weigh)
    with torch.no_grad():
        without = to.weighted_sum(a.clone().requires_grad_(), weigh)
    assert with_gradient.requires_grad
    assert not without.requires_grad
    torch.testing.assert_close(without, with_gradient.detach())
    torch.testing.assert_close(without, (distance.matrix(a, b) * weigh(distance.matrix(a, b))).sum(dim=1))


@pytest.mark.parametrize("distance", [c() for c in DISTANCES.values()], ids=repr)
@pytest.mark.parametrize("rows", [1, PIECE, PIECE + 1])
def test_pieces_are_the_matrix_without_its_gradient(distance, rows):
    a = some(3).requires_grad_()
    b = some(rows)
    found = torch.full((3, rows), torch.nan, dtype=a.dtype)
    for part, d in distance.against(b).pieces(a):
        assert not d.requires_grad
        assert torch.is_grad_enabled()
        found[:, part] = d
    torch.testing.assert_close(found, distance.matrix(a, b).detach())


def test_the_leading_coordinates_are_placed_and_rounded_as_the_inner_distance_does():
    z = torch.randn(4, 7, generator=generator())
    assert torch.equal(Leading(3, Spherical()).place(z), Spherical().place(z[:, :3]))
    d = torch.tensor([0.0, 0.5])
    for inner in METRICS:
        assert torch.equal(Leading(3, inner).rounding(d, 4.0), inner.rounding(d, 4.0))
