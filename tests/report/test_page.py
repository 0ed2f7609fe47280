import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from commentaries.errors import BadInput, BadRun
from commentaries.report import Gallery, GalleryItem, Plot, Table, write_page


class Page(HTMLParser):
    """The elements of a page, and the text that a reader sees."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.shown = [], []
        self.source = path.read_text("utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.shown.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join("".join(self.shown).split())


def picture(uri, kind="png"):
    head, data = uri.split(",")
    assert head == f"data:image/{kind};base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def item(image=None, given="cat", suggested="dog", suspicion=0.9, note=""):
    image = np.eye(8) if image is None else image
    return GalleryItem(image, given, suggested, suspicion, note)


@pytest.fixture
def write(tmp_path):
    def written(*sections, title="Report", summary="Done."):
        path = write_page(tmp_path / "page.html", title=title, summary=summary, sections=sections)
        return Page(path)

    return written


def test_everything_is_inside(write):
    page = write(
        Plot("A plot", "Its caption.", Figure(figsize=(4, 2))),
        Gallery("Examples", "", [item(), item()]),
        Table("Numbers", "", ["name", "value"], [["a", 0.5]]),
    )
    sources = [image["src"] for image in page.all("img")]
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert picture(sources[0]).shape[:2] == (400, 800)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", page.source)
    assert not page.all("script")
    assert [link["href"] for link in page.all("link")] == ["data:,"]


def test_text_of_users_is_escaped(write):
    bad = "<script>alert('x')</script>"
    page = write(
        Plot(bad, bad, Figure(figsize=(1, 1))),
        Gallery(
            bad, bad, [item(given=bad, suggested='"><img src=x onerror=y>', note=bad)], {bad: 1}
        ),
        Table(bad, bad, [bad], [[bad]]),
        title=bad,
        summary=bad,
    )
    assert not page.all("script")
    assert "<script" not in page.source
    assert all(set(image) <= {"src", "alt", "width"} for image in page.all("img"))
    assert page.all("img")[1]["alt"] == f'labelled {bad}, suggested "><img src=x onerror=y>'
    assert page.text.count(bad) == 14


def test_items_whose_labels_differ_stand_out(write):
    page = write(Gallery("", "", [item(), item(given="cat", suggested="cat")]))
    assert [li["class"] for li in page.all("li")] == ["item differs tiny first", "item tiny first"]
    assert "cat → dog" in page.text


@pytest.mark.parametrize(
    ("suspicion", "shown", "width"),
    [(0.914, "0.91", "91%"), (7.0, "7.00", "100%"), (-1.0, "-1.00", "0%"), (np.nan, "–", "0%")],
)
def test_suspicion_is_a_number_and_a_bar(write, suspicion, shown, width):
    page = write(Gallery("", "", [item(suspicion=suspicion)]))
    assert page.text.endswith(f"cat → dog {shown}")
    assert [span["style"] for span in page.all("span") if "style" in span] == [f"width: {width}"]


@pytest.mark.parametrize(
    ("image", "pixels"),
    [
        (np.array([[-3.0, 1.0], [-1.0, 0.0]]), [[0, 255], [128, 191]]),
        (np.array([[[0.0, 2.0]]]), [[0, 255]]),
        (np.array([[[0.0]], [[1.0]], [[0.5]]]), [[[0, 255, 128]]]),
        (np.array([[[0.0, 3.0]], [[0.0, 1.0]]]), [[0, 255]]),
        (np.array([[5.0, 5.0]]), [[127, 127]]),
        (np.array([[np.nan, 1.0]], dtype=np.float32), [[0, 255]]),
        (np.array([[0, 255]], dtype=np.uint8), [[0, 255]]),
    ],
)
def test_thumbnails_span_the_range_of_the_image(write, image, pixels):
    page = write(Gallery("", "", [item(image)]))
    (attributes,) = page.all("img")
    assert picture(attributes["src"]).tolist() == pixels


def test_large_images_become_small_thumbnails(write):
    page = write(Gallery("", "", [item(np.random.default_rng(0).random((3, 300, 600)))]))
    assert picture(page.all("img")[0]["src"], "webp").shape == (48, 96, 3)
    assert page.all("li")[0]["class"] == "item differs first"


@pytest.mark.parametrize(
    "image",
    [np.array([[0.25, 0.5]]), np.array([[[0.25, 0.5]]] * 3), np.array([[64, 128]], np.uint8)],
)
def test_pixels_in_their_range_are_shown_as_they_are(write, image):
    page = write(Gallery("", "", [item(image)]))
    shown = picture(page.all("img")[0]["src"]).reshape(2, -1)
    assert (np.abs(shown - [[64], [128]]) <= 1).all()


# filter


def rules(page):
    """Which classes of items the style hides for each choice."""
    found = re.findall(r"#(g\d+):has\(\.(\w+):checked\) \.item:not\(\.(\w+)\)", page.source)
    return {(section, choice): shown for section, choice, shown in found}


def test_a_gallery_is_filtered_by_label_without_scripts(write):
    items = [item(given="cat"), item(given="dog", suggested="cat"), replace(item(), first=False)]
    galleries = [
        Gallery("No choice", "", items),
        Gallery("One", "", items, {"cat": 1200, "dog": 0}),
        Gallery("Two", "", items, {"dog": 3}),
    ]
    page = write(Plot("", "", Figure(figsize=(1, 1))), *galleries)
    assert [section.get("id") for section in page.all("section")] == [None, None, "g1", "g2"]
    inputs = [(each["name"], each["class"], "checked" in each) for each in page.all("input")]
    assert inputs == [
        ("g1", "all", True), ("g1", "c0", False), ("g1", "c1", False),
        ("g2", "all", True), ("g2", "c0", False),
    ]  # fmt: skip
    classes = [set(li["class"].split()) - {"item", "differs", "tiny"} for li in page.all("li")]
    assert classes[3:6] == [{"first", "c0"}, {"first", "c1"}, {"c0"}]
    assert classes[6:] == [{"first"}, {"first", "c0"}, set()]
    assert rules(page) == {
        ("g1", "all"): "first", ("g1", "c0"): "c0", ("g1", "c1"): "c1",
        ("g2", "all"): "first", ("g2", "c0"): "c0",
    }  # fmt: skip
    assert "cat 1,200" in page.text
    assert not page.all("script")


@pytest.mark.parametrize("shape", [(4,), (0, 3), (1, 1, 2, 2)])
def test_images_of_other_shapes_are_refused(write, shape):
    with pytest.raises(BadInput, match=re.escape(str(shape))):
        write(Gallery("", "", [item(np.zeros(shape))]))


@pytest.mark.parametrize("section", [Gallery("Empty", "", []), Table("Empty", "", ["a"], [])])
def test_empty_sections_say_so(write, section):
    page = write(section)
    assert page.text.endswith("Empty Nothing to show.")
    assert not page.all("li")
    assert not page.all("table")


def test_numbers_are_set_to_the_right(write):
    page = write(Table("", "", ["name", "value"], [["a", 0.25], ["b", None]]))
    assert [cell.get("class") for cell in page.all("td")] == [None, "right"] * 2
    assert page.text.endswith("name value a 0.250 b –")


def test_paragraphs_of_the_summary(write):
    assert len(write(summary="One.\n\nTwo.\n\n").all("p")) == 2


def test_names_that_are_not_unicode_are_written(write):
    assert "caf? .png" in write(Gallery("", "", [item(note="caf\udce9 .png")])).text


def test_a_failed_write_leaves_the_old_page_and_no_other_file(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(BadRun, match="No space left"):
        write_page(path, title="New", summary="", sections=[])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_made_and_the_path_returned(tmp_path):
    path = tmp_path / "new" / "folder" / "page.html"
    assert write_page(str(path), title="Report", summary="", sections=[]) == path
    assert path.exists()
