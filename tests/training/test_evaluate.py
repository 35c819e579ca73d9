"""An evaluation end to end: figures that are known, warnings where they are too good, and all files."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_evaluations import LABELS, Tile, colour_bundle, coloured
from PIL import Image

from her2bridge.errors import NotEnoughLabels, UsageError
from her2bridge.events import Evaluated, Event, Warned
from her2bridge.training import evaluate as module
from her2bridge.training.dataset import Dataset
from her2bridge.training.evaluate import EvaluateSettings, evaluate, measure
from her2bridge.training.evaluation import Evaluation
from her2bridge.training.evaluation_figures import draw_errors, surest_errors
from her2bridge.training.evaluation_report import plain_evaluation, report
from her2bridge.training.metrics import Reading
from her2bridge.training.predict import RuntimeSettings

CPU = RuntimeSettings("cpu", "fp32", "torch")
FILES = {
    *("report.md", "report.json", "predictions.parquet", "suspects.csv", "errors.jpg", "reliability.png"),
    *(f"confusion_{reading}.png" for reading in ("six", "four", "three")),
}
RIGHT: list[Tile] = [(label, label, purity) for label in LABELS for purity in (1.0, 0.95)]
WRONG: list[Tile] = [("2+", "3+", 0.99), ("1+", "normal", 0.7)]


TABLE = "d" * 64
"""Hash of the table that bundles with folds say they learned from."""


@dataclass(frozen=True)
class Fold:
    """One bundle for all slides of the dataset."""

    path: Path
    dataset: str = TABLE

    def bundle_for(self, fingerprint: str) -> Path | None:
        return self.path


def run(
    folder: Path,
    dataset: Dataset,
    *,
    split: str = "test",
    slides: Sequence[str] | None = (),
    fold: Path | None = None,
    heard: list[Event] | None = None,
) -> Evaluation:
    """Measure, and write nothing."""
    said = {} if slides is None else {"training": {"slides": list(slides), "dataset": TABLE}}
    bundle = colour_bundle(folder / "model", slides=slides, temperature=2.0, **said)
    settings = EvaluateSettings(split=split, runtime=CPU)
    return measure(bundle, dataset, settings, ([] if heard is None else heard).append, fold and Fold(fold))


def warnings(heard: Sequence[Event]) -> str:
    return "\n".join(event.message for event in heard if isinstance(event, Warned))


def test_all_of_it(tmp_path: Path) -> None:
    """Three patients; of 38 test tiles 2 are wrong, and the surer of them is shown first."""
    dataset = coloured(tmp_path, [RIGHT, RIGHT + WRONG, RIGHT, RIGHT], splits=["train", "test", "test", "test"])
    heard: list[Event] = []
    bundle, out = colour_bundle(tmp_path / "model", temperature=2.0), tmp_path / "out"
    settings = EvaluateSettings(write_suspects=True, runtime=CPU, backend="files")
    found = evaluate(bundle, dataset, out, settings, heard.append)
    assert {path.name for path in out.iterdir()} == {*FILES, "suspects"}

    six, four = found.figures[Reading.SIX], found.figures[Reading.FOUR]
    assert six.accuracy == pytest.approx(36 / 38)
    assert (four.tiles, four.confusion[1, 4], four.confusion[2, 3]) == (26, 1, 1)
    assert found.patients == 3
    plain = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert plain["six"]["accuracy"] == six.accuracy
    assert plain["six"]["intervals"]["accuracy"][0] < six.accuracy <= plain["six"]["intervals"]["accuracy"][1]
    assert [(one["slide"], one["tiles"]) for one in plain["slides"]] == [("s1", 14), ("s2", 12), ("s3", 12)]
    assert plain["slides"][0]["accuracy"] == pytest.approx(12 / 14)
    assert plain["model"]["temperature"] == 2.0
    calibration = plain["calibration"]
    assert (
        calibration["before_temperature"]["expected_calibration_error"]
        != calibration["after_temperature"]["expected_calibration_error"]
    )

    rows = pq.read_table(out / "predictions.parquet").to_pydict()
    assert rows["row"] == list(range(12, 50))
    assert rows["label"][-1] == rows["found"][-1] == "noise"
    assert (rows["slide"][13], rows["x"][13], rows["y"][13]) == ("s1", 208.0, 0.0)
    assert (rows["label"][13], rows["found"][13]) == ("1+", "normal")
    assert sum(np.array(rows[f"p_{label}"]) for label in LABELS) == pytest.approx(1)

    with (out / "suspects.csv").open(encoding="utf-8", newline="") as file:
        first, *others = list(csv.DictReader(file))
    assert (first["row"], first["slide"], first["label"], first["found"]) == ("24", "s1", "2+", "3+")
    assert float(first["p_found"]) > float(first["p_label"])
    assert found.written is not None
    assert found.written.in_files == 1 + len(others) == len(found.suspects)
    assert [path.name for path in found.written.files] == ["s1.geojson"]

    for path in out.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.format == "PNG"
    with Image.open(out / "errors.jpg") as sheet:
        assert sheet.width < 3 * 280  # two tiles

    last = heard[-1]
    assert isinstance(last, Evaluated)
    assert (last.tiles, last.patients, last.accuracy) == (38, 3, six.accuracy)
    assert "Only 3 patients: the intervals are unreliable" in warnings(heard)
    assert "LEAK" not in warnings(heard)
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "Research use only" in text
    assert "Accuracy 94.7 (" in text
    assert "| s1 | p1 | 14 | 85.7 |" in text


def test_suspects_out_of_fold(tmp_path: Path) -> None:
    """All of the dataset is searched, not only what is evaluated, and by the fold's network."""
    dataset = coloured(tmp_path, [RIGHT, RIGHT + WRONG], splits=["test", "train"])
    fold = colour_bundle(tmp_path / "fold-0", contrast=0.01)
    found = run(tmp_path, dataset, fold=fold.path)
    assert found.searched.rows.tolist() == list(range(26))
    assert found.searched.probabilities.max() < 0.3
    assert found.probabilities.max() > 0.5
    plain = plain_evaluation(found)
    assert plain["suspects"]["out_of_fold"]["tiles"] == 26


def test_a_fold_that_learned_from_the_slide_is_refused(tmp_path: Path) -> None:
    dataset = coloured(tmp_path, [RIGHT, RIGHT])
    fold = colour_bundle(tmp_path / "fold-0", slides=[dataset.slides[1].fingerprint])
    heard: list[Event] = []
    found = run(tmp_path, dataset, fold=fold.path, heard=heard)
    assert found.searched.refused.tolist() == list(range(12, 24))
    assert "not looked for in 12 tiles: their fold's model learned from their patients" in warnings(heard)


def test_a_leak_is_told(tmp_path: Path) -> None:
    """Slide 1 was learned from; slide 2 is of the same patient."""
    dataset = coloured(tmp_path, [RIGHT, RIGHT, RIGHT[:5]], patients=["p", "q", "q"])
    heard: list[Event] = []
    found = run(tmp_path, dataset, slides=[dataset.slides[1].fingerprint], heard=heard)
    assert "LEAK: the model learned from 1 of the 3 slides evaluated (12 of 29 tiles)" in warnings(heard)
    assert "LEAK: the model learned from other slides of the patients of 1 of the 3 slides" in warnings(heard)
    assert "not looked for in 17 tiles" in warnings(heard)
    assert found.searched.rows.tolist() == list(range(12))
    text = report(found)
    assert "**Warning.** LEAK: the model learned from 1 of the 3 slides" in text
    assert [line.endswith("| yes |") for line in text.splitlines() if line.startswith("| s")] == [False, True, False]


def test_the_papers_split_is_told(tmp_path: Path) -> None:
    dataset = coloured(tmp_path, [RIGHT, RIGHT], splits=[*["train", "test"] * 6, *["test"] * 12])
    heard: list[Event] = []
    run(tmp_path, dataset, heard=heard)
    assert "split the paper's way: tiles of 1 of its slides lie both in train and in test" in warnings(heard)


def test_a_card_that_names_no_slides_is_told(tmp_path: Path) -> None:
    heard: list[Event] = []
    dataset = coloured(tmp_path, [RIGHT])
    found = run(tmp_path, dataset, slides=None, heard=heard)
    assert "names no slides" in warnings(heard)
    assert not len(found.searched.rows)
    assert "nobody can tell whether it learned from their patients" in warnings(heard)
    bundle, settings = colour_bundle(tmp_path / "model", slides=None), EvaluateSettings(write_suspects=True)
    with pytest.raises(UsageError, match="Suspect labels cannot be written") as caught:
        evaluate(bundle, dataset, tmp_path / "out", settings, heard.append)
    assert "--folds" in caught.value.next_step
    assert not (tmp_path / "out").exists()


def test_folds_of_another_training(tmp_path: Path) -> None:
    dataset = coloured(tmp_path, [RIGHT])
    bundle = colour_bundle(tmp_path / "model", training={"slides": [], "dataset": TABLE})
    with pytest.raises(UsageError, match="another dataset"):
        measure(bundle, dataset, EvaluateSettings(runtime=CPU), print, Fold(bundle.path, "e" * 64))


def test_suspects_of_before_go(tmp_path: Path) -> None:
    dataset, out = coloured(tmp_path, [RIGHT + WRONG]), tmp_path / "out"
    bundle = colour_bundle(tmp_path / "model")
    evaluate(bundle, dataset, out, EvaluateSettings(write_suspects=True, runtime=CPU), print)
    assert [path.name for path in (out / "suspects").iterdir()] == ["s0.geojson"]
    (out / "suspects" / "mine.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    evaluate(bundle, dataset, out, EvaluateSettings(runtime=CPU), print)
    assert [path.name for path in (out / "suspects").iterdir()] == ["mine.geojson"]


def test_one_patient_has_no_intervals(tmp_path: Path) -> None:
    heard: list[Event] = []
    found = run(tmp_path, coloured(tmp_path, [RIGHT]), heard=heard)
    assert found.intervals is None
    assert "All tiles are of one patient: no interval can be given" in warnings(heard)
    assert plain_evaluation(found)["intervals"] is None
    assert "In brackets" not in report(found)


def test_normal_tissue_alone(tmp_path: Path) -> None:
    """No figure of four classes, and no NaN."""
    found = run(tmp_path, coloured(tmp_path, [[("normal", "normal")] * 3, [("normal", "normal")]]))
    plain = plain_evaluation(found)
    json.dumps(plain, allow_nan=False)
    assert plain["four"]["accuracy"] is None
    assert plain["six"]["intervals"] == {
        name: [1.0, 1.0] for name in ("accuracy", "macro_precision", "macro_recall", "macro_f1")
    }
    assert "No tile has a label of these classes." in report(found)
    assert "| normal | 4 | 100.0 | 100.0 | – | 100.0 |" in report(found)


def test_without_errors_the_sheet_of_before_goes(tmp_path: Path) -> None:
    path = tmp_path / "errors.jpg"
    path.write_bytes(b"from before")
    dataset = coloured(tmp_path, [[("0", "0")]])
    assert draw_errors(dataset, np.array([0]), np.eye(6, dtype=np.float32)[:1], path) == 0
    assert not path.exists()


def test_splits(tmp_path: Path) -> None:
    dataset = coloured(tmp_path, [RIGHT, RIGHT[:7]], splits=["train", "val"])
    assert len(run(tmp_path, dataset, split="all").rows) == 19
    assert run(tmp_path, dataset, split="val").rows.tolist() == list(range(12, 19))
    with pytest.raises(NotEnoughLabels, match="The split test has no tiles") as caught:
        run(tmp_path, dataset)
    assert "train: 12, val: 7, test: 0" in caught.value.next_step
    with pytest.raises(UsageError, match="--split cannot be 'tests'"):
        EvaluateSettings(split="tests")


def test_the_surest_errors_come_first() -> None:
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]], dtype=np.float32)
    assert surest_errors(np.array([1, 1, 0, 0]), probabilities).tolist() == [2, 3, 0]


def test_a_network_that_doubts_most_labels_is_itself_in_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = coloured(tmp_path, [[("3+", "0"), *[("0", "0")] * 9], [("3+", "3+")] * 9])
    settings = EvaluateSettings(write_suspects=True, runtime=CPU)
    found = []
    for most in (0.3, 0.02):
        monkeypatch.setattr(module, "TOO_MANY", most)
        heard: list[Event] = []
        evaluate(colour_bundle(tmp_path / "model"), dataset, tmp_path / f"out-{most}", settings, heard.append)
        told = [event.message for event in heard if isinstance(event, Warned)]
        found.append((any("no judge" in one for one in told), (tmp_path / f"out-{most}" / "suspects").is_dir()))
    assert found == [(False, True), (True, False)]
