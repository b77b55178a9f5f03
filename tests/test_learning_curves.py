"""The picture of how agents learned, from the lines that the benchmark ends with."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import learning_curves

RESULTS = [
    {
        "env_id": "ALE/Pong-v5",
        "teacher": "oracle",
        "labels": [300, 300],
        "rounds": [[-21, 0, 18], [-21, -3, 20]],
    },
    {"env_id": "ALE/Pong-v5", "teacher": "oracle", "labels": [300], "rounds": [[-21, 3, 19]]},
    {"env_id": "ALE/Pong-v5", "teacher": "coin", "labels": [300], "rounds": [[-21, -21, -20.5]]},
]


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
    for _, points in lines:
        assert all(0 <= x <= learning_curves.WIDTH and 0 <= y <= learning_curves.HEIGHT for x, y in points)
    words = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "oracle, 3 seeds" in words
    assert "coin, 1 seed" in words
