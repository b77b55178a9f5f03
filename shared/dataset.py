"""An exported experiment as a data set: Parquet tables and a data card beside the plain files.

`preferences.parquet` has one answer a row, `clips.parquet` one clip, `rounds.parquet` one round; clips are
named as in the folder `clips/`. pandas reads the tables; Hugging Face `datasets` reads the whole folder, by
the card's header.
"""

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from shared.export import (
    ROUND_COLUMNS,
    ExportError,
    aside_lines,
    clip_rows,
    preference_lines,
    round_rows,
)
from shared.models import Experiment

LICENCE = re.compile(r"^[a-z0-9][a-z0-9.+-]{0,60}$")
CARD = """---
license: {licence}
pretty_name: Preferences of the experiment {name}
tags:
- preferences
- reinforcement-learning
configs:
- config_name: preferences
  default: true
  data_files: preferences.parquet
- config_name: clips
  data_files: clips.parquet
- config_name: rounds
  data_files: rounds.parquet
{more_configs}---

# Preferences of the experiment {name}

{answers} answers of {labelers} labelers to comparisons of {clips} clips of an agent in `{env_id}`, made with
Lockstep. Labelers were asked:

> {instructions}

| file | holds |
| --- | --- |
| `preferences.parquet` | one answer a row, withdrawn ones too: who, when, which clips, which ranks |
| `clips.parquet` | one clip a row: its steps, frames a second, files and their SHA-256 sums |
| `rounds.parquet` | one round a row: labels, accuracy, predicted and true return |
| `clips/*.npz`, `clips/*.mp4` | observations [T + 1, ...] and actions [T, ...]; what labelers saw |
| `agents/`, `reward_models/` | the weights of every round, safetensors |
| `config.json` | the configuration of the experiment |
{more_files}
`imported_from` names the experiment in which an answer was given first, if it was taken over from one; such
answers stand in round 0. `ranks[i]` belongs to `clips[i]`: 0 is the best, equal ranks are a tie, null means
that the clips cannot be compared. Clip `shown[i]` stood at place i, from the left, row by row. Labelers are
named as they named themselves: change that before you publish, if they did not agree to it.

## How to read it

```python
import pandas
from pathlib import Path
from datasets import Video, load_dataset

folder = Path().resolve()  # where this file is
answers = pandas.read_parquet(folder / "preferences.parquet")
clips = load_dataset(str(folder), "clips", split="train")
clips = clips.map(lambda row: {{"video": str(folder / row["mp4"])}})
clips = clips.cast_column("video", Video(decode=False))  # the file's path; decode=True needs torchcodec
```
"""


# Where somebody practised or was asked twice; a table without a row would only be in the way.
ASIDES_CONFIG = """- config_name: asides
  data_files: asides.parquet
"""
ASIDES_FILE = (
    "| `asides.parquet` | answers that are no labels: of practice, or to a comparison that the labeler "
    "was asked once more (`repeat`) |\n"
)


def adder(licence: str) -> Callable[[Session, Experiment, Path], None]:
    """Return the function that makes an export a data set under `licence`.

    ExportError without pyarrow, or if `licence` is no identifier: it stands in the header of the card.
    """
    if not LICENCE.fullmatch(licence):
        raise ExportError(
            f"{licence!r} is no licence as the data card writes it: give an identifier in lower case, "
            "cc-by-4.0 or mit for instance; other, where you say more in the card yourself"
        )
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise ExportError(
            "a data set needs pyarrow, which is not here: pip install 'lockstep[data]'"
        ) from None
    moment = arrow.timestamp("us", tz="UTC")
    numbers, words = arrow.list_(arrow.int32()), arrow.list_(arrow.string())
    types: dict[str, Any] = {
        "round": arrow.int32(), "comparison": arrow.int32(), "clips": words,
        "ranks": numbers, "shown": numbers, "incomparable": arrow.bool_(), "held_out": arrow.bool_(),
        "seconds": arrow.float64(),
        "answered_at": moment, "withdrawn_at": moment, "steps": arrow.int32(), "fps": arrow.float64(),
        "labels": arrow.int32(),
    }  # fmt: skip
    types |= {name: arrow.float64() for name in ROUND_COLUMNS[3:]}

    def write(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
        fields = [arrow.field(name, types.get(name, arrow.string())) for name in columns]
        parquet.write_table(arrow.Table.from_pylist(rows, arrow.schema(fields)), path)

    def add(session: Session, experiment: Experiment, folder: Path) -> None:
        answers, clips = preference_lines(session, experiment.id), clip_rows(session, experiment.id)
        for row in answers:
            for column in ("answered_at", "withdrawn_at"):
                row[column] = datetime.fromisoformat(row[column]) if row[column] else None
        write(folder / "preferences.parquet", PREFERENCE_COLUMNS, answers)
        asides = aside_lines(session, experiment.id)
        for row in asides:
            row["answered_at"] = datetime.fromisoformat(row["answered_at"])
        if asides:
            write(folder / "asides.parquet", ASIDE_COLUMNS, asides)
        write(folder / "clips.parquet", CLIP_COLUMNS, clips)
        write(folder / "rounds.parquet", ROUND_COLUMNS, round_rows(session, experiment.id))
        about = {
            "licence": licence,
            "name": experiment.name,
            "answers": len(answers),
            "labelers": len({row["labeler"] for row in answers}),
            "clips": len(clips),
            "more_configs": ASIDES_CONFIG if asides else "",
            "more_files": ASIDES_FILE if asides else "",
            "env_id": experiment.config["env_id"],
            "instructions": experiment.config["labels"]["instructions"].strip().replace("\n", "\n> "),
        }
        (folder / "README.md").write_text(CARD.format(**about), encoding="utf-8")

    return add


PREFERENCE_COLUMNS = (
    "id", "round", "comparison", "clips", "ranks", "incomparable", "shown", "held_out", "labeler",
    "labeler_kind", "imported_from", "seconds", "answered_at", "withdrawn_at",
)  # fmt: skip
ASIDE_COLUMNS = (
    "kind", "round", "comparison", "clips", "ranks", "incomparable", "shown", "labeler", "seconds",
    "answered_at",
)  # fmt: skip
CLIP_COLUMNS = ("clip", "round", "steps", "fps", "npz", "npz_sha256", "mp4", "mp4_sha256")
