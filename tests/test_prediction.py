"""Scoring one's own images: streamed, decided, resumed."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from maskrd.cli import app
from maskrd.config.record import read_record
from maskrd.engine import prediction
from maskrd.engine.decision import choose_threshold
from maskrd.engine.machine import Machine
from maskrd.engine.prediction import find_images, heatmap_name, predict, read_rows, record_beside
from maskrd.engine.sampling import split_validation
from maskrd.engine.scoring import BATCH_SIZE, Scorer
from maskrd.errors import MaskrdError
from tests.conftest import write_image

CPU = Machine("cpu")


def rows_of(output: Path) -> list[dict]:
    with (output / "scores.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def known_scores(model: Path) -> dict[str, float]:
    with model.with_name("scores.csv").open() as file:
        return {row["image"]: float(row["score"]) for row in csv.DictReader(file)}


def test_the_scores_are_those_of_the_evaluation(tested, tmp_path):
    job, output = tested(), tmp_path / "out"
    folder = job.data / "bolt/test"
    summary = predict(job.model, [folder / "crack", folder / "good/000.png"], output, CPU)
    rows = rows_of(output)
    names = [Path(row["image"]).relative_to(folder).as_posix() for row in rows]
    assert names == ["crack/000.png", "crack/001.png", "good/000.png"]
    known = known_scores(job.model)
    for row in rows:
        name = Path(row["image"]).relative_to(job.data / "bolt").as_posix()
        assert float(row["score"]) == pytest.approx(known[name], rel=1e-5)
        with Image.open(output / row["heatmap"]) as picture:
            assert picture.size == (2 * 32, 32)
    left = np.asarray(Image.open(output / rows[0]["heatmap"]))[:, :32]
    source = Image.open(rows[0]["image"]).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(left, np.asarray(source))
    # Nothing was held out, so nothing is decided.
    assert read_record(job.model.with_name("metrics.json")).decision is None
    assert (summary.scored, summary.anomalous) == (3, None)
    assert {row["anomalous"] for row in rows} == {""}


def test_the_threshold_comes_from_held_out_normal_images_alone(tested, tmp_path):
    job = tested(validation_fraction=0.5, epochs=1)
    decision = read_record(job.model.with_name("metrics.json")).decision
    folder = job.data / "bolt/train/good"
    _, held_out = split_validation(6, 0.5, 0)
    predict(job.model, [folder / f"{position:03d}.png" for position in held_out.tolist()], tmp_path / "held", CPU)
    # 5 % of three images is none of them, so the threshold is the highest score.
    assert decision.held_out == 3
    assert decision.threshold == pytest.approx(max(float(row["score"]) for row in rows_of(tmp_path / "held")), rel=1e-5)
    assert {row["anomalous"] for row in rows_of(tmp_path / "held")} == {"false"}
    known = known_scores(job.model)
    above = {good: [score > decision.threshold for name, score in known.items() if ("/good/" in name) == good]
             for good in (True, False)}  # fmt: skip
    assert decision.false_alarm_rate == pytest.approx(np.mean(above[True]))
    assert decision.recall == pytest.approx(np.mean(above[False]))
    summary = predict(job.model, [job.data / "bolt/test/*/*.png"], tmp_path / "out", CPU)
    assert summary.anomalous == sum(above[True]) + sum(above[False])


def test_normal_images_of_ones_own_give_a_threshold(tested, tmp_path):
    job = tested()
    good, crack = job.data / "bolt/test/good", job.data / "bolt/test/crack"
    summary = predict(job.model, [good, crack], tmp_path / "out", CPU, normal=[good])
    scores = [float(row["score"]) for row in rows_of(tmp_path / "out")]
    expected = ["true" if score > max(scores[:3]) else "false" for score in scores]
    assert [row["anomalous"] for row in rows_of(tmp_path / "out")] == expected
    assert summary.anomalous == expected.count("true")
    (tmp_path / "broken.png").write_text("no image")
    with pytest.raises(MaskrdError, match=r"These normal images can't be read:\n.*broken\.png"):
        predict(job.model, [good], tmp_path / "other", CPU, normal=[tmp_path / "broken.png"])


@pytest.mark.parametrize(
    ("count", "rate", "allowed"),
    [(21, 0, 0), (21, 0.05, 1), (21, 0.1, 2), (21, 0.5, 10), (20, 0.05, 1), (19, 0.05, 0), (100, 0.05, 5)],
)
def test_at_most_the_wanted_share_of_normal_images_is_above_the_threshold(count, rate, allowed):
    scores = np.random.default_rng(0).normal(size=count).astype(np.float32)
    assert (scores > choose_threshold(scores, rate)).sum() == allowed


def test_images_are_never_held_but_for_one_batch(tested, tmp_path, monkeypatch):
    job = tested(epochs=1)
    for number in range(3 * BATCH_SIZE + 1):
        write_image(tmp_path / f"many/{number:03d}.png", seed=number)
    read, scored = [], []
    load, score = prediction.load_image, Scorer.score

    def load_one(content, path, size):
        read.append(path)
        assert len(read) - sum(scored) <= BATCH_SIZE
        return load(content, path, size)

    def score_some(self, images):
        scored.append(len(images))
        return score(self, images)

    monkeypatch.setattr(prediction, "load_image", load_one)
    monkeypatch.setattr(Scorer, "score", score_some)
    summary = predict(job.model, [tmp_path / "many"], tmp_path / "out", CPU, heatmaps=False)
    assert scored == [BATCH_SIZE, BATCH_SIZE, BATCH_SIZE, 1]
    assert summary.scored == sum(scored)
    visible = sorted(path.name for path in (tmp_path / "out").glob("[!.]*"))
    assert visible == ["prediction.json", "scores.csv", "unreadable.csv"]


def test_two_runs_do_not_write_to_one_folder(tested, tmp_path):
    job, output = tested(epochs=1), tmp_path / "out"
    with prediction.locked(output), pytest.raises(MaskrdError, match="out: another run writes to it"):
        predict(job.model, [job.data / "bolt/test/good"], output, CPU)
    assert not (output / "scores.csv").exists()
    assert predict(job.model, [job.data / "bolt/test/good"], output, CPU).scored == 3


def test_a_stopped_run_goes_on(tested, tmp_path, monkeypatch):
    job = tested(epochs=1)
    for number in range(2 * BATCH_SIZE):
        write_image(tmp_path / f"many/{number:03d}.png", seed=number)
    predict(job.model, [tmp_path / "many"], tmp_path / "unbroken", CPU)
    score, calls = Scorer.score, []

    def score_once(self, images):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Scorer, "score", score_once)
        with pytest.raises(KeyboardInterrupt):
            predict(job.model, [tmp_path / "many"], tmp_path / "out", CPU)
    path = tmp_path / "out/scores.csv"
    path.write_text(path.read_text(encoding="utf-8")[:-3], encoding="utf-8")  # a kill in the middle of a line
    assert predict(job.model, [tmp_path / "many"], tmp_path / "out", CPU).scored == 2 * BATCH_SIZE
    for one, other in zip(rows_of(tmp_path / "out"), rows_of(tmp_path / "unbroken"), strict=True):
        assert float(one.pop("score")) == pytest.approx(float(other.pop("score")), rel=1e-5)
        assert one == other
        name = one["heatmap"]
        assert np.abs(np.asarray(Image.open(tmp_path / "out" / name)).astype(int)
                      - np.asarray(Image.open(tmp_path / "unbroken" / name))).max() <= 1  # fmt: skip


def test_a_changed_image_is_scored_again_and_a_heatmap_never(tested, tmp_path):
    job, folder = tested(epochs=1), tmp_path / "images"
    for number in range(3):
        write_image(folder / f"{number}.png", seed=number)
    (folder / "broken.png").write_text("no image")
    output = folder / "out"
    pattern = [folder / "**/*.png"]
    assert predict(job.model, pattern, output, CPU).scored == 3
    before = {row["image"]: row for row in rows_of(output)}
    write_image(folder / "1.png", seed=9)
    os.utime(folder / "1.png", (0, 0))
    again = predict(job.model, [folder / "1.png"], output, CPU)
    assert (again.scored, len(again.unreadable)) == (3, 1)  # broken.png is still on the list
    after = {row["image"]: row for row in rows_of(output)}
    changed = str(folder / "1.png")
    assert {image for image in after if after[image] != before[image]} == {changed}
    assert after[changed]["score"] != before[changed]["score"]
    heatmaps = {path.name for path in output.glob("*.png")}
    assert heatmaps == {row["heatmap"] for row in after.values()}
    assert predict(job.model, pattern, output, CPU).scored == 3


def test_scores_of_another_threshold_or_origin_are_not_mixed(tested, tmp_path):
    job = tested(epochs=1)
    good, crack = job.data / "bolt/test/good", job.data / "bolt/test/crack"
    predict(job.model, [good], tmp_path / "out", CPU)
    before = (tmp_path / "out/scores.csv").read_text()
    with pytest.raises(MaskrdError, match="scores of another model, recipe of testing or threshold"):
        predict(job.model, [crack], tmp_path / "out", CPU, normal=[good])
    with pytest.raises(MaskrdError, match="scores of another model, recipe of testing or threshold"):
        predict(job.model, [good], tmp_path / "out", CPU, normal=[good])  # nothing is left to score
    assert (tmp_path / "out/scores.csv").read_text() == before
    (tmp_path / "own").mkdir()
    (tmp_path / "own/scores.csv").write_text("my,own,table\n1,2,3\n")
    with pytest.raises(MaskrdError, match=r"scores\.csv: exists, but not from an earlier run.*Choose another folder"):
        predict(job.model, [good], tmp_path / "own", CPU)
    assert (tmp_path / "own/scores.csv").read_text() == "my,own,table\n1,2,3\n"


def test_a_threshold_that_differs_in_the_last_digits_goes_on(tested, tmp_path, monkeypatch):
    """Another machine, or another number of threads, chose it from the same images."""
    job = tested(epochs=1)
    good, crack = job.data / "bolt/test/good", job.data / "bolt/test/crack"
    predict(job.model, [good], tmp_path / "out", CPU, normal=[good])
    before = json.loads((tmp_path / "out/prediction.json").read_text())["threshold"]
    for factor, fits in ((1 + 1e-6, True), (1 + 1e-3, False)):
        monkeypatch.setattr(prediction, "choose_threshold", lambda *_, factor=factor: before * factor)
        if fits:
            predict(job.model, [crack], tmp_path / "out", CPU, normal=[good])
        else:
            with pytest.raises(MaskrdError, match="scores of another model"):
                predict(job.model, [crack], tmp_path / "out", CPU, normal=[good])
    assert json.loads((tmp_path / "out/prediction.json").read_text())["threshold"] == before


def test_a_missing_heatmap_is_drawn_and_its_image_scored_again(tested, tmp_path):
    job = tested(epochs=1)
    good = job.data / "bolt/test/good"
    predict(job.model, [good], tmp_path / "out", CPU, heatmaps=False)
    plain = {row["image"]: row["score"] for row in rows_of(tmp_path / "out")}
    predict(job.model, [good], tmp_path / "out", CPU)
    rows = rows_of(tmp_path / "out")
    assert {row["image"]: row["score"] for row in rows} == plain
    assert all((tmp_path / "out" / row["heatmap"]).is_file() for row in rows)
    (tmp_path / "out" / rows[0]["heatmap"]).unlink()
    predict(job.model, [good], tmp_path / "out", CPU)
    heatmaps = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert heatmaps == {row["heatmap"] for row in rows_of(tmp_path / "out")}
    assert len(heatmaps) == len(rows)


def test_a_link_to_itself_is_an_unreadable_image(tested, tmp_path):
    job, folder = tested(epochs=1), tmp_path / "images"
    write_image(folder / "a.png", seed=0)
    (folder / "b.png").symlink_to(folder / "b.png")
    summary = predict(job.model, [folder], tmp_path / "out", CPU)
    assert (summary.scored, list(summary.unreadable)) == (1, [str(folder / "b.png")])


def test_a_model_that_is_tested_with_random_masks_scores_no_image_by_itself(tested, tmp_path):
    job = tested(epochs=1)
    path = job.model.with_name("metrics.json")
    record = json.loads(path.read_text())
    record["evaluation"]["recipe"]["mask_at_test"] = True
    path.write_text(json.dumps(record))
    with pytest.raises(MaskrdError, match="mask_at_test, whose masks are random"):
        predict(job.model, [job.data / "bolt/test/good"], tmp_path / "out", CPU)


def test_unreadable_images_are_counted_and_tried_again(tested, tmp_path):
    job = tested(epochs=1)
    folder = tmp_path / "images"
    for number in range(2):
        write_image(folder / f"{number}.png", seed=number)
    (folder / "._0.png").write_bytes(b"what macOS leaves")
    (folder / "broken.png").write_text("no image")
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    arguments = ["predict", str(job.model), str(folder), str(tmp_path / "gone.png"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "images scored: 2. Higher scores" in result.output
    assert "Images that can't be read: 4" in result.output
    with (tmp_path / "out/unreadable.csv").open() as file:
        problems = {Path(row["image"]).name: row["problem"] for row in csv.DictReader(file)}
    assert set(problems) == {"broken.png", "pipe.png", "folder.png", "gone.png"}
    assert all(name in problem for name, problem in problems.items())
    nothing = CliRunner().invoke(
        app, ["predict", str(job.model), str(folder / "broken.png"), "--output", str(tmp_path / "none")]
    )
    assert nothing.exit_code != 0
    write_image(folder / "broken.png", seed=3)
    assert predict(job.model, [folder], tmp_path / "out", CPU).scored == 3
    assert predict(job.model, [folder / "broken.png"], tmp_path / "none", CPU).scored == 1


def test_odd_names(tested, tmp_path):
    job = tested(epochs=1)
    folder = tmp_path / "images"
    names = ["x" * 249 + ".png", "ü" * 120 + ".png", 'a,"b".png', os.fsdecode(b"\xff.png"), "[1].png", "a\nb.png"]
    for seed, name in enumerate(names):
        write_image(folder / name, seed=seed)
    for _ in range(2):  # the second finds all done
        summary = predict(job.model, [folder], tmp_path / "out", CPU)
        assert (summary.scored, summary.unreadable) == (len(names), {})
    heatmaps = [row["heatmap"] for row in rows_of(tmp_path / "out")]
    assert len(set(heatmaps)) == len(names)
    assert all((tmp_path / "out" / name).is_file() for name in heatmaps)
    assert heatmap_name(7, Path("x" * 249 + ".png")) == f"0007-{'x' * 180}.png"


def test_an_unreadable_image_of_an_odd_name_is_listed(tested, tmp_path):
    job = tested(epochs=1)
    broken = tmp_path / "images" / os.fsdecode(b"\xff.png")
    broken.parent.mkdir()
    broken.write_bytes(b"no image")
    assert list(predict(job.model, [broken.parent], tmp_path / "out", CPU).unreadable) == [f"{broken.parent}/\\xff.png"]
    assert "\\xff.png" in (tmp_path / "out/unreadable.csv").read_text(encoding="utf-8")


def test_no_file_of_the_users_is_overwritten(tested, tmp_path):
    job = tested(epochs=1)
    own = tmp_path / "images/0000-a.png"
    write_image(own, seed=0)
    write_image(own.with_name("a.png"), seed=1)
    before = own.read_bytes()
    with pytest.raises(MaskrdError, match=r"images: holds other files"):
        predict(job.model, [own.with_name("a.png")], own.parent, CPU)
    assert own.read_bytes() == before
    assert len(list(own.parent.iterdir())) == 2
    with pytest.raises(MaskrdError, match=r"0000-a\.png: a file\. Choose a new folder"):
        predict(job.model, [own.with_name("a.png")], own, CPU)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("image,score,anomalous,heatmap,sha256\na.png,1,,x,0\nb.png,1,,x,0", 1),
        ("image,score,anomalous,heatmap,sha256\na.png,1,,x,0\nb.p", 1),
        ('image,score,anomalous,heatmap,sha256\na\u2028.png,1,,x,0\n"b\n', 1),
        ("image,score,anomalous,heatmap,sha256\n", 0),
        ("image,score,anomalous,heatmap,sha256\na.png\nb.png,1,,x,0\n", None),
        ("\0", None),
        ("x" * 200_000, None),
        ("", None),
    ],
)
def test_lines_of_an_earlier_run(tmp_path, text, whole):
    (tmp_path / "prediction.json").write_text("{}")
    (tmp_path / "scores.csv").write_text(text, encoding="utf-8")
    if whole is None:
        with pytest.raises(MaskrdError, match=r"scores\.csv: exists, but not"):
            read_rows(tmp_path / "scores.csv")
    else:
        assert len(read_rows(tmp_path / "scores.csv")) == whole


def test_patterns_and_folders_name_each_image_once(tmp_path):
    for name in ("a/1.png", "a/b/2.jpg", "a/.hidden.png", "a/notes.txt", "x[1].png"):
        write_image(tmp_path / name, seed=0) if name.endswith(("png", "jpg")) else (tmp_path / name).touch()
    found = find_images([tmp_path / "a", tmp_path / "a/**/*", tmp_path / "x[1].png"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a/1.png", "a/b/2.jpg", "x[1].png"]
    with pytest.raises(MaskrdError, match=r"no images .* finds images in subfolders, too"):
        find_images([tmp_path / "none*"])
    with pytest.raises(MaskrdError, match="no images"):
        find_images([tmp_path / "misspelt"])


def test_a_file_that_is_no_model_is_named_rather_than_its_missing_record(tmp_path):
    (tmp_path / "notes.md").write_text("No model.")
    with pytest.raises(MaskrdError, match=r"notes\.md: not a model\.safetensors"):
        record_beside(tmp_path / "notes.md")


def test_what_cannot_be_scored_with_is_refused(tested, tmp_path):
    job = tested(epochs=1)
    images = [job.data / "bolt/test/good"]
    moved = tmp_path / "elsewhere/model.safetensors"
    moved.parent.mkdir()
    moved.write_bytes(job.model.read_bytes())
    with pytest.raises(MaskrdError, match=r"metrics\.json: missing"):
        predict(moved, images, tmp_path / "out", CPU, job.teacher)
    path = job.model.with_name("metrics.json")
    moved.with_name("metrics.json").write_bytes(path.read_bytes())
    with pytest.raises(MaskrdError, match=r"teacher of .* Name it with --teacher"):
        predict(moved, images, tmp_path / "out", CPU)
    moved.write_bytes(moved.read_bytes()[:-1] + b"?")
    with pytest.raises(MaskrdError, match=r"model\.safetensors: not the file that .*metrics\.json was made from"):
        predict(moved, images, tmp_path / "out", CPU, job.teacher)
    job.model.with_name("gallery.npz").write_bytes(b"")
    with pytest.raises(MaskrdError, match=r"gallery\.npz: not anomaly maps"):
        predict(job.model, images, tmp_path / "out", CPU)
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["evaluation"]["recipe"]["blur_sigma"]
    path.write_text(json.dumps(content))
    with pytest.raises(MaskrdError, match=r"metrics\.json: .*evaluation\.recipe\.blur_sigma: Field required"):
        predict(job.model, images, tmp_path / "out", CPU)
    path.write_bytes(moved.with_name("metrics.json").read_bytes())
    job.teacher.write_text("another")
    with pytest.raises(MaskrdError, match="not the teacher"):
        predict(job.model, images, tmp_path / "out", CPU)
