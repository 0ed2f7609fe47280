"""The pages of small runs, and what is said in a sentence."""

import re
from dataclasses import replace

import lessons
import numpy as np
import pytest
import torch
from elsewhere import DEVICE, Elsewhere
from lessons import SETTINGS

from commentaries.errors import BadRun
from commentaries.report import lesson_page
from commentaries.report.lesson_page import (
    PAIRS,
    _extremes,
    lesson_finding,
    method_table,
    write_lesson_page,
)
from commentaries.teaching import job as jobs
from commentaries.teaching.job import prepare, run
from commentaries.training import RunFolder

EVIL = "<script>alert(1)</script>"
TINY = {"train": 50, "validation": 20, "test": 30}


DRAWN = {"test_the_page_of_mixing", "test_the_page_of_masks"}


@pytest.fixture(autouse=True)
def _invented(monkeypatch, request):
    lessons.invent(monkeypatch)
    lessons.few_crops(monkeypatch)
    monkeypatch.setattr(lesson_page, "SHOWN", 2)
    if request.node.name not in DRAWN:
        lessons.no_figures(monkeypatch)


def written(job, path):
    """The page of a run, and its folder."""
    folder = RunFolder.create(path / "run", job)
    prepared = prepare(job)
    run(job, folder, prepared)
    page = write_lesson_page(folder, job, prepared)
    assert page == folder.path / "report.html"
    return page.read_text(), folder


def headings(page):
    return re.findall("<h2>(.*?)</h2>", page)


def test_the_page_of_mixing(tmp_path):
    page, folder = written(lessons.mixup(**TINY, controls="quick", alphas=(0.5,)), tmp_path)
    assert "<h1>How to mix digits</h1>" in page
    assert headings(page) == [
        "What is mixed with what", "The most and the least mixed pairs", "Examples",
        "Ratios over training", "Test accuracy", "All methods", "Training",
    ]  # fmt: skip
    assert "50 training, 20 validation and 30 test examples; seed 0." in page
    assert lesson_finding(lessons.mixup(), folder.read_json("result.json")) in page
    assert len(re.findall("data:image/png;base64,[A-Za-z0-9+/]{1000}", page)) == 5
    assert "<td>standard mixup</td>" in page
    assert "α: of the Beta distribution" in page
    assert "Mass in box" not in page
    assert "nan" not in re.sub('base64,[^"]*', "", page)


def test_tables_that_change_with_progress_are_shown_at_both_ends(tmp_path):
    page, _ = written(lessons.mixup(**TINY, knots=2), tmp_path)
    assert "At the start of a student&#39;s training" in headings(page)
    assert "Test accuracy" not in headings(page)  # one method alone is no comparison


def test_a_network_that_has_not_met_every_pair(tmp_path):
    job = lessons.mixup(train=20, validation=20, test=30, ratio="network")
    page, folder = written(job, tmp_path)
    ratios = folder.read_json("result.json")["ratios"]
    assert any(value is None for row in ratios for value in row)
    assert "What is mixed with what" in headings(page)


def test_the_page_of_masks(tmp_path):
    job = lessons.masks(**TINY, data="coloured_mnist", controls="all", student="small_cnn")
    page, folder = written(job, tmp_path)
    assert "<h1>Where to look in coloured_mnist</h1>" in page
    assert headings(page) == [
        "Masks", "Masks over training", "Area and place over training", "Test accuracy",
        "Worst group", "All methods", "Training",
    ]  # fmt: skip
    for text in ("Grad-CAM at its last convolution", "The box is around what the label is about",
                 "Worst group: the least accuracy", "<td>group balanced</td>"):  # fmt: skip
        assert text in page
    assert lesson_finding(job, folder.read_json("result.json")) in page


def test_boxes_of_what_misleads(tmp_path):
    job = lessons.masks(**TINY, data="pasted_photos", student="small_cnn")
    page, _ = written(job, tmp_path)
    assert "The box is around what misleads" in page
    assert "lies in the boxes of what misleads, which are" in page
    assert "where a student without a mask looks" not in page  # there is none


def test_masks_of_images_of_which_nothing_is_known(tmp_path):
    job = lessons.masks(**TINY, data="digits", mask="window", controls="quick")
    page, _ = written(job, tmp_path)
    assert "The box" not in page
    assert "Mass in box" not in page
    assert "Area over training" in headings(page)
    assert "where a student without a mask looks" in page


def test_names_of_classes_are_text(tmp_path):
    names = [f"{EVIL} {label}" for label in range(4)]
    rng = np.random.default_rng(0)
    y = np.array([names[row % 4] for row in range(40)])
    np.savez(tmp_path / "own.npz", x=rng.random((40, 8, 8)), y=y)
    own = {"data": str(tmp_path / "own.npz"), "train": 20, "validation": 8, "test": 12}
    for number, job in enumerate((lessons.mixup(**own), lessons.masks(**own))):
        page, _ = written(job, tmp_path / f"{number}")
        assert "<script" not in page
        assert "own.npz</h1>" in page


def test_a_page_needs_a_run_that_has_learned(tmp_path):
    job = lessons.mixup(**TINY)
    folder = RunFolder.create(tmp_path / "run", job)
    with pytest.raises(BadRun, match=r"result\.json"):
        write_lesson_page(folder, job, prepare(job))
    assert not (folder.path / "report.html").exists()


def test_a_page_of_data_on_another_device(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "check_device", lambda name: None)
    job = lessons.masks(
        **TINY, data="coloured_mnist", controls="quick", student="small_cnn",
        settings=replace(SETTINGS, steps=2),
    )  # fmt: skip
    page, folder = written(job, tmp_path)
    far = replace(job, device=str(DEVICE))
    with Elsewhere():
        again = write_lesson_page(folder, far, prepare(far)).read_text()
    assert headings(again) == headings(page)
    assert again == page


# what is said


def test_pairs_in_the_order_of_their_ratios():
    ratios = np.array([[0.1, 0.6, 0.9], [0.7, 0.2, np.nan], [0.8, 0.65, 0.3]])
    found = _extremes(ratios, ["a", "b", "c"], symmetric=False)
    assert found == [
        ["a", "b", 0.6, "", "a", "c", 0.9],
        ["c", "b", 0.65, "", "c", "a", 0.8],
        ["b", "a", 0.7, "", "b", "a", 0.7],
    ]
    # of a symmetric table each pair once
    same = _extremes((ratios + ratios.T) / 2, ["a", "b", "c"], symmetric=True)
    assert [row[:2] for row in same] == [["a", "b"]]
    assert [row[4:6] for row in same] == [["a", "c"]]


def test_of_many_pairs_the_ends():
    ratios = np.linspace(0, 1, 400).reshape(20, 20)
    found = _extremes(ratios, [str(i) for i in range(20)], symmetric=False)
    assert len(found) == PAIRS
    assert found[0] == ["0", "1", float(ratios[0, 1]), "", "19", "18", float(ratios[19, 18])]


def test_no_pair_of_two_classes():
    assert _extremes(np.array([[0.5, np.nan], [np.nan, 0.5]]), ["a", "b"], symmetric=False) == []


def scores(accuracy, **more):
    return {"accuracy": accuracy, "loss": 1.0, "validation": 0.5, **more}


def test_columns_that_no_method_has_are_left_out():
    methods = {"ours": scores(0.9, mass=0.4, pointing=1.0), "no mask": scores(0.8)}
    columns, rows = method_table(methods)
    assert columns == [
        "method", "test accuracy", "validation", "test loss", "mass in box", "pointing"
    ]  # fmt: skip
    assert rows == [["ours", 0.9, 0.5, 1.0, 0.4, 1.0], ["no mask", 0.8, 0.5, 1.0, None, None]]


def test_what_mixing_found():
    result = {
        "methods": {"ours": scores(0.912), "no mixing": scores(0.9), "standard mixup": scores(0.8)},
        "ratios": [[0.5, None], [1.0, 0.9]],
    }  # fmt: skip
    assert lesson_finding(lessons.mixup(), result) == (
        "The student that was taught is right on 91.2% of the test examples; the best control, "
        "no mixing, on 90.0%. The learned share of an example itself is 0.80 on average and runs "
        "from 0.50 to 1.00."
    )


def test_what_masks_found():
    alone = {"methods": {"ours": scores(0.5)}, "area": 0.254}
    assert lesson_finding(lessons.masks(data="digits"), alone) == (
        "The student that was taught is right on 50.0% of the test examples. The masks let 25% of "
        "the test images through."
    )
    methods = {"ours": scores(0.5, mass=0.71, pointing=0.9)}
    boxes = {"methods": methods, "area": 0.25, "inside": "label", "box_area": 0.19}
    assert lesson_finding(lessons.masks(), boxes).endswith(
        "71% of that lies in the boxes of what the label is about, which are 19% of the images."
    )


def test_images_are_shown_in_the_order_of_their_names(tmp_path, monkeypatch):
    """Each mask belongs to the image above it."""
    drawn = []
    original = lesson_page.image_grid

    def noted(images, **options):
        drawn.append((images, options))
        return original(images, **options)

    monkeypatch.setattr(lesson_page, "image_grid", noted)
    job = lessons.masks(**TINY, settings=replace(SETTINGS, outer_lr=0.1), student="small_cnn")
    folder = RunFolder.create(tmp_path / "run", job)
    prepared = prepare(job)
    run(job, folder, prepared)
    write_lesson_page(folder, job, prepared)
    (images, options), (over_time, _) = drawn
    phi = jobs.learned(job, folder, prepared).phi
    test, marked = prepared.parts.test, prepared.topic.marks.test
    for column, image in enumerate(images[0]):
        (row,) = [r for r in range(30) if torch.equal(test.x[r], torch.from_numpy(image))]
        mask = prepared.topic.masks(phi, test.x[row : row + 1])[0, 0]
        torch.testing.assert_close(torch.from_numpy(images[1][column]), mask)
        torch.testing.assert_close(torch.from_numpy(images[2][column]), test.x[row] * mask)
        torch.testing.assert_close(torch.from_numpy(over_time[-1][column]), mask)
        assert options["boxes"][column] == marked.box[row].tolist()
        assert options["columns"][column] == test.classes[int(test.y[row])]
