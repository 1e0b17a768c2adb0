"""Published profiles hold what was published, and any profile has a black-box and a transfer form."""

from itertools import product

import pytest

from robustdml.adversary import L2, Adversary, Linf, Nes, Pgd
from robustdml.attacks.goals import Candidate, DynamicWeight, FixedWeight, PreservingQuery
from robustdml.names import searched
from robustdml.profile import PROFILES, Measurement, Profile, black_box, for_data, transferred
from robustdml.types import RunReference

COUNTS = (1, 2, 5, 10)


def found(name):
    """(kind, direction, number of targets, eps, step size, steps) of every measurement, in order."""
    rows = []
    for m in PROFILES[name].measurements:
        kind = "CA" if isinstance(m.goal, Candidate) else "SPQA"
        count = m.goal.queries if kind == "CA" else m.goal.candidates
        search = m.adversary.search
        rows.append((kind, m.goal.direction, count, m.adversary.ball.eps, search.step_size, search.steps))
    return rows


def expected(*parts):
    return [
        (kind, direction, count, *budget)
        for kind, counts, budgets in parts
        for budget, count, direction in product(budgets, counts, ("raise", "lower"))
    ]


PAMI_28 = [(8 / 255, 1 / 255, 32), (77 / 255, 3 / 255, 32)]
PAMI_224 = [(2 / 255, 1 / 255, 32), (8 / 255, 3 / 255, 32)]
ECCV_28 = [(0.01, 1 / 255, 10), (0.03, 1 / 255, 15), (0.1, 0.01, 20), (0.3, 0.01, 30)]
ECCV_224 = [(0.01, 1 / 255, 10), (0.03, 1 / 255, 15), (0.06, 0.006, 20)]
CURVE = [(7 * i / 255, 3 / 255, 32) for i in range(12)]
PUBLISHED = {
    "pami28": (32, 128, expected(("SPQA", COUNTS, PAMI_28), ("CA", COUNTS, PAMI_28))),
    "pami224": (32, 112, expected(("SPQA", COUNTS, PAMI_224), ("CA", COUNTS, PAMI_224))),
    "eccv28": (64, 128, expected(("CA", COUNTS, ECCV_28), ("SPQA", COUNTS, ECCV_28))),
    "eccv224": (48, 112, expected(("CA", COUNTS, [(0.01, 1 / 255, 24), *ECCV_224[1:]]), ("SPQA", COUNTS, ECCV_224))),
    "qccurve28": (48, 128, expected(("CA", (1,), CURVE), ("SPQA", (1,), CURVE))),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_profiles_of_many_budgets_are_the_published_ones(name):
    count, batch, rows = PUBLISHED[name]
    profile = PROFILES[name]
    assert len(profile.measurements) == count
    assert profile.batch == batch
    assert found(name) == rows
    assert profile.published
    assert not profile.has_ers
    assert not any(m.goal.unique for m in profile.measurements)


def test_the_weights_are_dynamic_except_in_the_profiles_of_eccv():
    for name in PUBLISHED:
        for m in PROFILES[name].measurements:
            if isinstance(m.goal, PreservingQuery):
                xi = {"raise": 1.0, "lower": 100.0}[m.goal.direction]
                assert m.goal.weight == (FixedWeight(xi) if name.startswith("eccv") else DynamicWeight())


def test_the_cvpr_profile_is_rob224_by_its_other_name():
    assert PROFILES["cvpr"].measurements == PROFILES["rob224"].measurements
    assert PROFILES["cvpr"].has_ers


def test_measurements_that_differ_in_budget_or_number_share_their_draws():
    streams = {m.stream for m in PROFILES["pami28"].measurements}
    assert streams == {"SPQA+", "SPQA-", "CA+", "CA-"}
    assert all(m.stream == "" for m in PROFILES["rob28"].measurements)


def test_kappa_follows_the_data_set_where_none_is_given():
    assert for_data(PROFILES["rob28"], "mnist") is PROFILES["rob28"]
    assert for_data(PROFILES["eccv28"], "mnist") is PROFILES["eccv28"]
    ours = for_data(PROFILES["pami28"], "mnist")
    assert {m.goal.weight for m in ours.measurements[:16]} == {DynamicWeight(2e4)}
    assert for_data(ours, "cars") is ours  # it has one now


@pytest.mark.parametrize(("name", "shape", "said"), [
    ("rob28", (3, 224, 224), "meant for images up to 28 pixels wide, these are 3x224x224.* Use rob224"),
    ("pami28", (3, 32, 32), "Use rob32"),
    ("rob224", (1, 28, 28), "of at least 65 pixels wide, these are 1x28x28.* Use rob28"),
    ("cvpr", (3, 64, 64), "Use rob32"),
    ("rob32", (3, 65, 40), "Use rob224"),
])  # fmt: skip
def test_a_profile_for_images_of_another_size_is_refused(name, shape, said):
    with pytest.raises(ValueError, match=said):
        PROFILES[name].check_images(shape)


def test_a_profile_fits_its_own_images():
    for name, shape in (
        ("rob28", (1, 28, 28)),
        ("rob28", (1, 8, 8)),
        ("rob32", (3, 32, 32)),
        ("rob224", (3, 224, 224)),
    ):
        PROFILES[name].check_images(shape)
    Profile("own", (Measurement("ES", PROFILES["rob28"].measurements[5].goal, Adversary(Linf(0.1), Pgd(1, 0.1))),)
            ).check_images((1, 1, 1))  # fmt: skip


def test_the_black_box_form_keeps_balls_steps_and_draws():
    profile = black_box(PROFILES["rob28"])
    assert profile.name == "rob28-nes"
    for own, m in zip(PROFILES["rob28"].measurements, profile.measurements):
        assert m.adversary == Adversary(own.adversary.ball, Nes(own.adversary.search.steps))
        assert (m.name, m.goal, m.stream) == (own.name, own.goal, own.stream)
    assert black_box(PROFILES["rob28"], population=20).name == "rob28-nes-20"
    assert profile.has_ers
    with pytest.raises(ValueError, match="CA\\+: Nes has no black-box form"):
        black_box(profile)
    with pytest.raises(ValueError, match="--population belongs"):
        searched(PROFILES["rob28"], "pgd", 20)


def test_the_transfer_form_names_its_surrogate():
    profile = transferred(PROFILES["rob28"], RunReference("runs/plain"), "plain")
    assert profile.name == "rob28-from-plain"
    assert {m.attack.surrogate for m in profile.measurements} == {RunReference("runs/plain")}
    published = transferred(PROFILES["rob28"], RunReference("runs/plain"), "plain", "target")
    assert published.name == "rob28-from-plain-as-published"
    assert {m.attack.energy_gallery for m in published.measurements} == {"target"}


def test_single_steps_have_no_black_box_form():
    black = black_box(PROFILES["class28"])
    assert [m.name for m in black.measurements] == ["misclassify", "misclassify-next"]
    assert black.note.endswith("; black box; without the single steps misclassify-fgsm")
    single = Measurement("ES", PROFILES["rob28"].measurements[5].goal, Adversary(Linf(0.1), Pgd(1, 0.1)))
    with pytest.raises(ValueError, match="single steps only"):
        black_box(Profile("own", (single,)))


def test_the_black_box_steps_of_l2_cross_the_ball():
    goal = PROFILES["rob28"].measurements[5].goal
    [m] = black_box(Profile("own", (Measurement("ES", goal, Adversary(L2(1.0), Pgd(10, 0.1))),))).measurements
    assert m.adversary.search.step_size == 0.25


@pytest.mark.parametrize(("name", "eps"), [("strong28", 77 / 255), ("strong32", 8 / 255), ("strong224", 8 / 255)])
def test_strong_profiles_attack_recall_again_and_again(name, eps):
    profile = PROFILES[name]
    assert not profile.has_ers
    assert [m.name for m in profile.measurements] == ["ES", "LTM", "GTM", "LTM-nearest", "leave-class"]
    for m in profile.measurements:
        assert m.adversary.ball == Linf(eps)
        quick, *searches = m.adversary.search.searches
        assert quick.steps == 10
        assert {s.steps for s in searches} == {100}
        assert [100 * s.step_size / eps for s in searches[:3]] == pytest.approx([2.5, 1, 10])
        assert [s.random_start for s in searches] == [False] * 3 + [True] * 5
