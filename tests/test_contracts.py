"""What every implementation of a protocol must be, collected from the tables of the library."""

import copy
import dataclasses
import inspect
import pickle

import pytest
import torch

from robustdml.adversary import BALLS, SEARCHES, Adversary, Ball, Linf, Noise, Pgd, Search, forwards_of
from robustdml.attacks import GOALS, Goal
from robustdml.attacks.goals import WEIGHTS, Weight
from robustdml.data.transforms import TRANSFORMS, Transform
from robustdml.defenses import (
    DEFENSES,
    DESTINATIONS,
    PENALTIES,
    AntiCollapse,
    Defense,
    Destination,
    Penalty,
    Plain,
    SingularValues,
)
from robustdml.distance import DISTANCES, Distance, Spherical
from robustdml.draws import Draws
from robustdml.losses import LOSSES, Loss
from robustdml.mining import MINERS, Miner, SemiHard
from robustdml.models import MODELS, Model
from robustdml.models.embedder import Embedder
from robustdml.ranking import Gallery
from robustdml.serial import from_json, to_json
from tests.toys import generator

TABLES = [
    (DISTANCES, Distance), (MINERS, Miner), (LOSSES, Loss), (MODELS, Model), (BALLS, Ball), (SEARCHES, Search),
    (GOALS, Goal), (WEIGHTS, Weight), (DEFENSES, Defense), (DESTINATIONS, Destination), (PENALTIES, Penalty),
    (TRANSFORMS, Transform),
]  # fmt: skip
ARGUMENTS = {  # by field name: what a class without a default for it is made with
    "eps": 8 / 255,
    "steps": 3,
    "step_size": 2 / 255,
    "direction": "raise",
    "adversary": Adversary(Linf(8 / 255), Pgd(3, 2 / 255)),
    "ball": Linf(8 / 255),
    "first": AntiCollapse(Adversary(Linf(8 / 255), Pgd(3, 2 / 255))),
    "second": Plain(),
    "inner": AntiCollapse(Adversary(Linf(8 / 255), Pgd(3, 2 / 255))),
    "penalty": SingularValues(),
    "width": 2,
}
EVERY = pytest.mark.parametrize(
    ("name", "cls", "protocol"),
    [(name, cls, protocol) for table, protocol in TABLES for name, cls in table.items()],
    ids=[f"{protocol.__name__}-{name}" for table, protocol in TABLES for name in table],
)


def made(cls):
    """An instance, with arguments only where there is no default."""
    needed = [f.name for f in dataclasses.fields(cls)
              if f.init and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]  # fmt: skip
    unknown = [name for name in needed if name not in ARGUMENTS]
    assert not unknown, f"{cls.__name__} needs {unknown}: give them defaults, or add them to ARGUMENTS"
    return cls(**{name: ARGUMENTS[name] for name in needed})


def instances(table):
    return pytest.mark.parametrize("it", [made(cls) for cls in table.values()], ids=list(table))


@EVERY
def test_it_is_listed_under_its_own_name(name, cls, protocol):
    assert cls.__name__ == name


@EVERY
def test_it_has_what_its_protocol_asks_for(name, cls, protocol):
    assert isinstance(made(cls), protocol)


@EVERY
def test_its_methods_take_the_arguments_of_the_protocol(name, cls, protocol):
    for method, asked in inspect.getmembers(protocol, inspect.isfunction):
        if method.startswith("_") and method != "__call__":
            continue
        wanted, given = inspect.signature(asked).parameters, inspect.signature(getattr(cls, method)).parameters
        assert [(p.name, p.kind) for p in given.values()] == [(p.name, p.kind) for p in wanted.values()], method
        assert [p.default for p in given.values()] == [p.default for p in wanted.values()], method


@EVERY
def test_it_is_a_frozen_dataclass_of_values(name, cls, protocol):
    it = made(cls)
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    assert not isinstance(it, torch.nn.Module)
    for field in dataclasses.fields(it):
        assert not isinstance(getattr(it, field.name), (torch.Tensor, torch.nn.Module)), field.name


@EVERY
def test_equal_values_are_equal_and_hash_alike(name, cls, protocol):
    it, other = made(cls), made(cls)
    assert it == other == copy.deepcopy(it) == pickle.loads(pickle.dumps(it))
    assert hash(it) == hash(other)
    assert "object at 0x" not in repr(it)


@EVERY
def test_its_docstring_begins_with_a_sentence(name, cls, protocol):
    first = (cls.__doc__ or "").split("\n", 1)[0]
    assert len(first) > 10
    assert not first.startswith(f"{name}("), "the automatic docstring of a dataclass says nothing"


@EVERY
def test_it_survives_being_written_to_json(name, cls, protocol):
    table = {n: c for t, _ in TABLES for n, c in t.items()} | {"Adversary": Adversary}
    assert from_json(to_json(made(cls)), table) == made(cls)


# ---- what all implementations of one noun do


@instances(DISTANCES)
def test_distances_keep_dtype_and_shape_and_agree_among_themselves(it):
    for dtype in (torch.float32, torch.float64):
        a, b = (torch.randn(n, 4, generator=generator(n), dtype=dtype) for n in (3, 5))
        d = it.matrix(a, b)
        assert (d.shape, d.dtype) == ((3, 5), dtype)
        torch.testing.assert_close(it.against(b)(a), d, atol=1e-5, rtol=0)
        torch.testing.assert_close(it.pairs(a, b[:3]), d.diagonal(), atol=1e-4, rtol=0)
        assert isinstance(it.resolution(b), float)
        assert it.resolution(b) > 0


@instances(DISTANCES)
def test_distances_do_not_depend_on_the_rows_around(it):
    a, b = (torch.randn(n, 4, generator=generator(n), dtype=torch.float64) for n in (3, 5))
    torch.testing.assert_close(it.matrix(a, b)[1:2, 2:4], it.matrix(a[1:2], b[2:4]), atol=1e-13, rtol=0)


@instances(MINERS)
def test_miners_find_rows_of_the_batch(it):
    z = torch.nn.functional.normalize(torch.randn(8, 4, generator=generator()), dim=1)
    labels = torch.arange(4).repeat_interleave(2)
    found = it(z, labels, Spherical(), draws=Draws(0), index=torch.arange(8))
    assert len(found.anchor) == len(found.positive) == len(found.negative) > 0
    assert torch.equal(labels[found.anchor], labels[found.positive])
    assert bool((labels[found.anchor] != labels[found.negative]).all())


@instances(LOSSES)
def test_losses_are_numbers_with_a_gradient(it):
    built = it.build(4, 6)
    z = torch.randn(8, 6, generator=generator()).requires_grad_()
    labels = torch.arange(4).repeat_interleave(2)
    value = built(z, labels, draws=Draws(0), index=torch.arange(8))
    assert value.shape == ()
    (gradient,) = torch.autograd.grad(value, z)
    assert bool(torch.isfinite(gradient).all())
    assert isinstance(built.distance, Distance)
    assert all(isinstance(p, torch.nn.Parameter) for group in built.parameter_groups().values() for p in group)


@instances(MODELS)
def test_models_build_differentiable_embedders(it):
    embedder = it.build((1, 28, 28)).eval()
    assert isinstance(embedder, Embedder)
    images = torch.rand(2, 1, 28, 28, generator=generator()).requires_grad_()
    z = embedder(images)
    assert z.shape == (2, embedder.dim)
    (gradient,) = torch.autograd.grad(z.sum(), images)
    assert float(gradient.abs().sum()) > 0
    alone = embedder(images[1:])  # sums of thousands of float32 terms, in another order
    torch.testing.assert_close(alone, z[1:], atol=1e-5 * float(z.detach().abs().max()), rtol=1e-5)
    grouped = [id(p) for group in embedder.parameter_groups().values() for p in group]
    assert sorted(grouped) == sorted(id(p) for p in embedder.parameters())
    if embedder.lipschitz is not None:
        far = torch.rand(2, 1, 28, 28, generator=generator(1))
        moved = (embedder(far) - z).norm(dim=1)
        assert bool((moved <= embedder.lipschitz * (far - images).flatten(1).norm(dim=1) * (1 + 1e-5)).all())


@instances(SEARCHES)
@pytest.mark.parametrize("ball", [cls(0.07) for cls in BALLS.values()], ids=list(BALLS))
@pytest.mark.parametrize("tuples", [(), (2,)], ids=["images", "pairs"])
def test_searches_stay_in_ball_and_box(it, ball, tuples):
    x = torch.rand(3, *tuples, 1, 4, 4, generator=generator(), dtype=torch.float64)
    target = torch.rand(*x.shape[1:], generator=generator(1), dtype=torch.float64)

    def energy(pixels, unit, step):
        return (pixels - target).square().flatten(1).sum(dim=1)

    found = it(energy, x, ball, draws=Draws(0), index=torch.arange(3))
    assert found.shape == x.shape
    assert float(ball.norm(found - x).max()) <= ball.eps + 1e-14
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    again = it(energy, x, ball, draws=Draws(0), index=torch.arange(3))
    assert torch.equal(found, again)
    if it != Noise():
        assert float(energy(found, None, 0).sum()) < float(energy(x, None, 0).sum())


@instances(DESTINATIONS)
def test_destinations_are_one_finite_hardness_for_each_triplet(it):
    z, labels = torch.randn(8, 6, generator=generator()), torch.arange(4).repeat_interleave(2)
    index = torch.arange(8)
    source = SemiHard()(z, labels, Spherical(), draws=Draws(0), index=index)
    for previous in (0.0, 0.1, 2.0):
        wanted = it(z, labels, source, Spherical(), previous=previous, draws=Draws(1), index=index)
        assert wanted.shape == source.anchor.shape
        assert bool(torch.isfinite(wanted).all())
        assert float(wanted.max()) <= 2.0


@instances(PENALTIES)
def test_penalties_take_batches_and_triplets(it):
    labels = torch.arange(2).repeat_interleave(6)
    for shape in ((12, 8), (12, 3, 8)):
        z = (300 * torch.randn(*shape, generator=generator(), dtype=torch.float64)).requires_grad_()
        value = it(z, labels)
        assert (value.shape, value.dtype) == ((), torch.float64)
        assert float(value.detach()) > 0
        (gradient,) = torch.autograd.grad(value, z)
        assert bool(torch.isfinite(gradient).all())


@instances(SEARCHES)
def test_searches_pass_images_through_the_network_as_often_as_they_say(it):
    x = torch.rand(4, 1, 4, 4, generator=generator(), dtype=torch.float64)
    seen = {True: 0, False: 0}

    def energy(pixels, unit, step):
        seen[torch.is_grad_enabled()] += len(pixels)
        return pixels.flatten(1).sum(dim=1)

    it(energy, x, BALLS["Linf"](0.05), draws=Draws(0), index=torch.arange(4))
    assert seen == {True: 4 * it.gradients, False: 4 * forwards_of(it)}


@instances(GOALS)
def test_goals_say_whom_they_move(it):
    assert it.perturbs in ("query", "candidate")
    assert isinstance(it.coupled, bool)


def test_records_of_tensors_compare_by_identity():
    z, labels = torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)
    one, other = Gallery(z, labels), Gallery(z, labels)
    assert one != other
    assert len({one, other}) == 2
