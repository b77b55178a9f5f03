"""The picture of how agents learned, from the lines that the benchmark ends with."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import learning_curves

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = [
    {
        "env_id": "ALE/Pong-v5",
        "teacher": teacher,
        "labels_after": [after] * len(rounds),
        "rounds": rounds,
    }
    for teacher, after, rounds in [
        ("oracle", [100, 200, 300], [[-21, 0, 18], [-21, -3, 20]]),
        ("oracle", [150, 225, 300], [[-21, 3, 19]]),
        ("coin", [150, 225, 300], [[-21, -21, -20.5]]),
    ]
]

LADDERS = {
    "env_id": "ALE/DonkeyKong-v5",
    "teacher": "oracle",
    "labels_after": [[70, 140]],
    "rounds": [[110, 90]],
    "ladders": [[{"y <= 132": 0.5, "y <= 101": 0}, {"y <= 132": 1, "y <= 101": 0.25}]],
}


def test_a_ladder_is_drawn_by_the_share_of_games_that_led_up_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, picture = tmp_path / "donkey_kong.jsonl", tmp_path / "donkey_kong.svg"
    results.write_text(json.dumps(LADDERS), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["curves", str(results), "--out", str(picture), "--ladder", "y <= 101"])
    learning_curves.main()
    root = ElementTree.parse(picture).getroot()
    svg = "{http://www.w3.org/2000/svg}"
    (seed, _) = [one for one in root.iter(svg + "polyline") if one.get("stroke") != learning_curves.QUIET]
    (_, nothing), (_, quarter) = (map(float, at.split(",")) for at in seed.get("points", "").split())
    height = learning_curves.HEIGHT - learning_curves.BOTTOM - learning_curves.TOP
    assert nothing == learning_curves.HEIGHT - learning_curves.BOTTOM
    assert nothing - quarter == pytest.approx(height / 4, abs=0.2)
    words = [one.text for one in root.iter(svg + "text")]
    assert "ALE/DonkeyKong-v5: share of games with y <= 101" in words


def test_pictures_of_returns_hold_all_of_them() -> None:
    assert learning_curves.range_of(["ALE/DonkeyKong-v5"], [3.3, 236.7]) == (0, 240)
    low, high = learning_curves.range_of(["ALE/DonkeyKong-v5", "ALE/Pong-v5"], [-21, 237])
    assert low <= -21 < 237 <= high
    assert learning_curves.range_of(["ALE/DonkeyKong-v5"], [0])[1] > 0
    assert learning_curves.range_of(["ALE/Pong-v5"], [-3]) == (-21, 21)


@pytest.mark.parametrize(
    ("game", "options"),
    [("pong", ["--target", "18"]), ("donkey_kong", ["--ladder", "y <= 101", "--target", "0.5"])],
)
def test_the_pictures_in_the_documentation_are_of_the_results_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, game: str, options: list[str]
) -> None:
    results, picture = DOCS / "results" / f"{game}.jsonl", tmp_path / "new.svg"
    monkeypatch.setattr(sys, "argv", ["curves", str(results), "--out", str(picture), *options])
    learning_curves.main()
    assert picture.read_text("utf-8") == (DOCS / f"{game}.svg").read_text("utf-8")


def test_every_seed_has_a_line_and_every_teacher_a_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, picture = tmp_path / "pong.jsonl", tmp_path / "pong.svg"
    results.write_text("\n".join(map(json.dumps, RESULTS)), encoding="utf-8")
    command = ["curves", str(results), "--out", str(picture), "--target", "18"]
    monkeypatch.setattr(sys, "argv", command)
    learning_curves.main()
    root = ElementTree.parse(picture).getroot()
    lines = [
        (one.get("stroke"), [tuple(map(float, point.split(","))) for point in one.get("points", "").split()])
        for one in root.iter("{http://www.w3.org/2000/svg}polyline")
    ]
    of_seeds = [points for colour, points in lines if colour != learning_curves.QUIET]
    assert [len(points) for points in of_seeds] == [3] * 6  # three seeds and their mean; one and its mean
    first, second, third, mean = (points[-1][1] for points in of_seeds[:4])
    assert second < mean < first  # 20 is drawn above 19 above 18
    assert mean == pytest.approx(third, abs=0.1)
    assert of_seeds[0][0][0] == pytest.approx(56 + 568 / 3, abs=0.1)  # after a third of the labels
    assert of_seeds[2][0][0] == pytest.approx(56 + 568 / 2, abs=0.1)  # which has a larger first round
    for _, points in lines:
        assert all(0 <= x <= learning_curves.WIDTH and 0 <= y <= learning_curves.HEIGHT for x, y in points)
    words = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "oracle, 3 seeds" in words
    assert "coin, 1 seed" in words
