import pytest

from robustdml.report.published import Published, canonical, published
from robustdml.report.run import COMPONENTS, mean_score


def test_all_tables_are_there() -> None:
    rows = published()
    assert len([row for row in rows if row.source == "RobRank README"]) == 15
    assert len([row for row in rows if row.source == "RobRank tables"]) == 9
    assert len([row for row in rows if "Table 6" in row.source]) == 27
    assert all("RobRank" in row.source or "RobDML" in row.source for row in rows)


@pytest.mark.parametrize(
    "row", [row for row in published() if row.raw], ids=lambda row: f"{row.dataset} {row.defense} {row.steps}"
)
def test_ers_recomputed_from_components_is_the_printed_one(row: Published) -> None:
    if row.ers is None:
        assert row.ers_undefined
        assert "ES:D" not in row.components
    else:
        assert tuple(row.components) == COMPONENTS
        assert mean_score(row.components) == pytest.approx(row.ers, abs=0.1)


def test_clean_scores_are_fractions() -> None:
    assert all(0 < value <= 1 for row in published() for value in row.clean.values())
    act = next(row for row in published("cub") if row.defense == "ACT" and row.source == "RobRank README")
    assert (act.clean["recall@1"], act.ers) == (0.275, 33.9)


@pytest.mark.parametrize(
    ("spelling", "short"),
    [
        ("Fashion-MNIST", "fashion"),
        ("FashionMNIST", "fashion"),
        ("CUB_200_2011", "cub"),
        ("Cars196", "cars"),
        ("digits", None),
    ],
)
def test_data_sets_are_known_under_their_usual_names(spelling: str, short: str | None) -> None:
    assert canonical(spelling) == short


def test_an_unknown_data_set_has_no_published_rows() -> None:
    assert published("digits") == []
