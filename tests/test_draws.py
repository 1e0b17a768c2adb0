"""Randomness that depends on (seed, purpose, index) alone."""

import hashlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustdml.draws import Draws

INDICES = st.lists(st.integers(0, 2**40), min_size=1, max_size=12)
MANY = torch.arange(20_000)


def literal_bits(draws, purpose, index, count):
    """SplitMix64 with Python integers, as signed 64-bit numbers."""
    whole = 2**64

    def mix(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % whole
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % whole
        return z ^ (z >> 31)

    name = f"{draws.seed}|{draws.path}|{purpose}".encode()
    key = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
    row = mix((mix((index * 0x9E3779B97F4A7C15 + key) % whole) + key) % whole)
    found = [mix((row + n * 0x9E3779B97F4A7C15) % whole) for n in range(1, count + 1)]
    return [value - whole if value >= whole // 2 else value for value in found]


@given(INDICES, st.integers(-(2**70), 2**70))
def test_bits_are_those_of_exact_arithmetic_modulo_two_to_the_64(index, seed):
    draws = Draws(seed).under("epoch", 3)
    found = draws.bits("x", torch.tensor(index), (2, 2))
    assert found.flatten(1).tolist() == [literal_bits(draws, "x", i, 4) for i in index]


def every_kind(draws, index):
    mask = torch.ones(len(index), 5, dtype=torch.bool)
    return [
        draws.uniform("u", index, (3,)),
        draws.uniform("u64", index, (2, 2), torch.float64),
        draws.normal("n", index, (3,)),
        draws.integers("i", index, 7, (4,)),
        draws.permutation("p", index, 6),
        draws.one_of("o", index, mask),
    ]


@given(INDICES, st.data())
def test_a_row_does_not_depend_on_the_rows_around_it(index, data):
    index = torch.tensor(index)
    chosen = data.draw(st.lists(st.integers(0, len(index) - 1), min_size=1, max_size=12))
    for whole, part in zip(every_kind(Draws(3), index), every_kind(Draws(3), index[chosen])):
        assert torch.equal(whole[chosen], part)


def test_longer_shapes_begin_with_the_shorter_ones():
    short, long = (Draws(0).bits("x", MANY[:5], (n,)) for n in (3, 9))
    assert torch.equal(short, long[:, :3])


def test_equal_seeds_give_equal_numbers_and_other_seeds_and_streams_others():
    index = torch.arange(100)
    reference = Draws(0).bits("x", index)
    assert torch.equal(reference, Draws(0).bits("x", index))
    others = [Draws(1).bits("x", index), Draws(0).bits("y", index), Draws(0).under(0).bits("x", index)]
    others.append(Draws(0).under(0, 1).bits("x", index))
    assert all((reference != other).all() for other in others)


def test_derived_streams_are_named_by_their_path():
    index = torch.arange(4)
    assert Draws(0).under("a", 1) == Draws(0).under("a").under(1)
    assert not torch.equal(Draws(0).under(1, 11).bits("x", index), Draws(0).under(11, 1).bits("x", index))


@pytest.mark.parametrize("name", ["purpose", "neighbouring index", "position"])
def test_different_places_are_uncorrelated(name):
    draws = Draws(0)
    u = draws.uniform("a", MANY, (2,), torch.float64)
    other = {"purpose": draws.uniform("b", MANY, (2,), torch.float64), "neighbouring index": u.roll(1, 0)}.get(
        name, u.flip(1)
    )
    correlation = torch.corrcoef(torch.stack([u[:, 0], other[:, 0]]))[0, 1]
    assert abs(float(correlation)) < 4 / math.sqrt(len(MANY))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_draws_fill_the_unit_interval_evenly(dtype):
    u = Draws(5).uniform("u", MANY, (2,), dtype)
    assert u.dtype == dtype
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    expected = u.numel() / 32
    counts = torch.histc(u.double(), 32, 0, 1)
    assert float((counts - expected).square().sum() / expected) < 31 + 5 * math.sqrt(62)  # chi-squared, five sigma


def test_normal_draws_have_the_moments_of_the_normal_distribution():
    z = Draws(5).normal("n", MANY, (2,), torch.float64).flatten()
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):  # spread: variance of z**power
        assert abs(float((z**power).mean()) - moment) < 5 * math.sqrt(spread / len(z))
    assert bool(torch.isfinite(z).all())


@given(INDICES, st.integers(1, 1000))
def test_integers_stay_below_their_bound(index, high):
    index = torch.tensor(index)
    drawn = Draws(0).integers("i", index, high, (5,))
    assert drawn.dtype == torch.int64
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < high
    tops = torch.arange(1, len(index) + 1)
    by_row = Draws(0).integers("i", index, tops, (5,))
    assert bool((by_row < tops[:, None]).all())


def test_integers_are_equally_likely():
    counts = Draws(1).integers("i", MANY, 7).bincount(minlength=7).double()
    expected = len(MANY) / 7
    assert float((counts - expected).square().sum() / expected) < 6 + 5 * math.sqrt(12)


@given(INDICES, st.integers(1, 40))
def test_permutations_hold_every_number_once(index, n):
    found = Draws(0).permutation("p", torch.tensor(index), n)
    assert torch.equal(found.sort(dim=1).values, torch.arange(n).expand(len(index), n))


def test_every_place_of_a_permutation_is_equally_likely():
    found = Draws(0).permutation("p", MANY[:12_000], 4)
    counts = torch.stack([found[:, place].bincount(minlength=4) for place in range(4)])
    assert bool(((counts - 3000).abs() < 5 * math.sqrt(3000)).all())


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6).filter(any), min_size=1, max_size=8))
def test_one_of_draws_a_true_entry(rows):
    mask = torch.tensor(rows)
    chosen = Draws(0).one_of("o", torch.arange(len(rows)), mask)
    assert bool(mask.gather(1, chosen[:, None]).all())


def test_one_of_draws_all_true_entries_equally_often():
    mask = torch.tensor([True, False, True, True, False]).expand(6000, 5)
    counts = Draws(0).one_of("o", MANY[:6000], mask).bincount(minlength=5)
    assert counts[[1, 4]].tolist() == [0, 0]
    assert bool(((counts[[0, 2, 3]] - 2000).abs() < 5 * math.sqrt(2000)).all())
