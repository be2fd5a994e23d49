"""Report pages: whole, harmless and small, and, where there is a Chromium, looked at in it: on a phone, a desk, paper,
in the dark, and without scripts."""

import functools
import gzip
import html.parser
import pathlib
import re
import tempfile

import numpy as np
import pytest
from browser import NAMES, Browser, find_browser
from example_runs import example, judged_run, profiled, run_of, with_failures

from fedmpi.read.report.page import page
from fedmpi.store import MemoryStore, read_run

TINY = ("--clients", 6, "--rounds", 4, "--local-epochs", 1, "--train-samples", 300, "--model", "small-cnn:width=4",
        "--pruner", "rigl:every=1")
FAULTY = ("--cohort", 3, "--devices", "drawn:dropout=0.3", "--timing", "sync:over=0.5,deadline=100", "--fault",
          "label-flip:share=0.3", "--observe", "loo")
BUFFERED = ("--devices", "constant", "--timing", "fedbuff:buffer=2", "--cohort", 3, "--strategy", "fedavg",
            "--pruner", "set:every=1")
WIDTHS = (320, 360, 700, 900, 1280)
OLD = sorted(pathlib.Path(__file__).parents[1].joinpath("data").glob("schema-*.h5.gz"))
EMPTY = {"meta", "link", "br", "img", "path", "use", "rect", "image", "circle"}


@pytest.fixture(scope="module")
def pages(fedmpi, tmp_path_factory):
    """``{name: the path of a page}`` of kinds of runs: one, several set-ups with seeds, lost clients, asynchronous,
    resumed, many clients and names, too young for anything."""
    folder = tmp_path_factory.mktemp("pages")
    for name, options in {"one": (), "fedavg0": ("--strategy", "fedavg"), "faulty": FAULTY, "buffered": BUFFERED,
                          "fedavg1": ("--strategy", "fedavg", "--seed", 1), "stopped": ("--until", 2)}.items():
        fedmpi(1, "train", *TINY, *options, "--out", folder / f"{name}.h5")
    fedmpi(1, "train", "--resume", folder / "stopped.h5", "--until", 3)
    for name in ("one", "faulty", "buffered", "stopped"):
        assert fedmpi(1, "report", folder / f"{name}.h5").strip().endswith(f"{name}.html")
    fedmpi(1, "report", *(folder / f"{name}.h5" for name in ("one", "fedavg0", "fedavg1", "buffered")), "-o",
           folder / "several.html")
    (folder / "twelve.html").write_text(page(twelve_of(read_run(folder / "one.h5")), remarks=["Seeds 0 to 2."]))
    (folder / "many.html").write_text(page({f"a-file-with-quite-a-long-name-{n}.h5": run_of(
        np.linspace(0.1, 0.7 + n / 50, 30), strategy="krum", lr=(n + 1) / 64) for n in range(9)}))
    (folder / "young.html").write_text(page({"young.h5": example(rounds=0)}))
    return {path.stem: path for path in sorted(folder.glob("*.html"))}


def twelve_of(run):
    """Four set-ups of three seeds each, all with what that run has."""
    return {f"{strategy}{lr}-{seed}.h5": run._replace(attrs=run.attrs | {"options": run.attrs["options"] | {
        "strategy": strategy, "lr": lr, "seed": seed}})
        for strategy in ("fedavg", "fedprox") for lr in (0.1, 0.2) for seed in range(3)}


PAGES = ("one", "several", "faulty", "buffered", "stopped", "many", "young")


class Checked(html.parser.HTMLParser):
    """Which tags are open, all ids, and what refers to them."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.named = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.named += [found["aria-labelledby"]] if "aria-labelledby" in found else []
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in EMPTY:
            self.handle_endtag(tag)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_small_and_needs_nothing_from_elsewhere(pages, name):
    text = pages[name].read_text(encoding="utf-8")
    found = Checked(text)
    assert found.open == [] and len(found.ids) == len(set(found.ids)) and set(found.named) <= set(found.ids)
    assert text.count("<svg") == text.count('role="img" aria-labelledby') + text.count('aria-hidden="true"')
    assert not re.search(r"<script|<link|@import|@font-face|\bon\w+=\"|javascript:|https?://", text)
    assert set(re.findall(r"(?:src|href)=\"([^#\"]{0,15})", text)) <= {"data:image/png;", ""}
    assert set(re.findall(r"url\((.)", text)) <= {"#"} and len(text) < 1_000_000
    assert "default-src 'none'" in text and "lang=\"en\"" in text and "width=device-width" in text


def test_a_page_shows_what_the_run_has(pages):
    one, faulty, several = (pages[name].read_text(encoding="utf-8") for name in ("one", "faulty", "several"))
    for title in ("Accuracy by round", "Accuracy by bytes sent", "Accuracy by training FLOPs", "Sparsity by layer",
                  "How the mask moved", "Contribution by round", "Contribution against the truth", "Who holds what",
                  "Time by phase", "Every client", "Command, versions, machines"):
        assert title in one, title
    assert "Accuracy by virtual time" in faulty and "What became of those asked" in faulty and "never came" in faulty
    for part in ("What differs between them", "at equal cost", "to reach a test accuracy", ", 2 seeds"):
        assert part in several, part
    stopped = pages["stopped"].read_text(encoding="utf-8")
    assert "The run was resumed once" in stopped and "Not the end: stopped" in stopped
    assert "never resumed" in one and "Not the end" not in one


def test_the_options_that_are_not_as_by_default_come_first(pages):
    text = pages["faulty"].read_text(encoding="utf-8")
    first = text[text.index("What is not as by default"):text.index("All options")]
    assert re.search(r"<th scope=\"row\">cohort</th>.*?<span>3</span>.*?<span>0</span>", first)
    assert "label-flip:share=0.3" in first and ">strategy<" not in first and ">lr<" not in first


def test_a_page_repeats(pages):
    run = {"x.h5": read_run(pages["one"].with_suffix(".h5"))}
    assert page(run) == page(run)


def test_a_run_that_failed_is_told_and_is_the_best_in_nothing():
    text = page(with_failures())
    assert "Not the end: failed, zero.h5 after 0 rounds, b2.h5 after 1 round" in text and "Accuracy by round" in text
    assert '<span class="best">0 B</span>' not in text and text.count('class="best"') >= 3


def titled(runs, **more):
    """``(the title, the line below it)`` of a page about the runs."""
    written = page(runs, **more)
    return re.search("<h1>(.*?)</h1>", written)[1], re.search('<p class="lead">(.*?)</p>', written)[1]


def of_day(day, **options):
    run = run_of([0.5, 0.6], **options)
    return run._replace(attrs=run.attrs | {"created": f"2026-11-{day}T12:00:00+00:00"})


def test_a_title_says_the_data_and_the_line_below_the_days():
    one, other = of_day(28, strategy="fedavg"), of_day(30, strategy="krum")
    assert titled({"a.h5": one}) == ("fedavg on digits", "digits, 32 clients, dirichlet:beta=0.5, small-cnn, 2 of 2 "
                                     "rounds, finished, 2026-11-28")
    title, lead = titled({"a.h5": one, "b.h5": other})
    assert title == "fedavg against krum on digits" and lead.endswith("2 runs, 2026-11-28 to 2026-11-30")
    own = of_day(30, dataset="hdf5:file=/data/wards.h5", strategy="krum")
    assert titled({"b.h5": own})[0] == "krum on wards"


def test_a_title_and_notes_may_be_given(fedmpi, pages):
    folder = pages["one"].parent
    fedmpi(1, "report", folder / "one.h5", "-o", folder / "noted.html", "--title", "Wards & <b>", "--note", "First.",
           "--note", "Then < more.")
    text = (folder / "noted.html").read_text(encoding="utf-8")
    assert "<h1>Wards &amp; &lt;b&gt;</h1>" in text and "<title>Wards &amp; &lt;b&gt;: fedmpi</title>" in text
    assert '<p class="remark">First.</p><p class="remark">Then &lt; more.</p>' in text


def test_set_ups_that_never_left_chance_are_named():
    runs = {f"{name}.h5": run_of([0.1, best], strategy=name) for name, best in (("fedavg", 0.104), ("krum", 0.5))}
    for run in runs.values():
        run.attrs["inputs"] = {"test_labels": [10] * 10}
    text = page(runs)
    assert "Never left chance: fedavg, at best 0.104 where guessing has 0.100. A difference" in text
    assert "Never left" not in page({"krum.h5": runs["krum.h5"]})


def test_what_users_wrote_stays_text():
    text = page({"<b>.h5": run_of([0.5, 0.6], model="<script>alert(1)</script>", fault=['"><img src=x>'])})
    assert "<script" not in text and "<img" not in text and "<b>" not in text and "&lt;script&gt;" in text


@pytest.mark.parametrize("make", [
    functools.partial(example, rounds=1), judged_run, profiled,
    *(functools.partial(example, rounds=3, without=[name]) for name in ("accuracy", "sparsity", "up_bytes", "client",
                                                                        "contribution", "noise", "samples")),
    lambda: MemoryStore({}, [], [], {}, ([0], [])).run()])
def test_anything_may_be_missing(make):
    assert Checked(page({"a.h5": make()})).open == []


@pytest.mark.parametrize("packed", OLD, ids=lambda path: path.name)
def test_old_run_files_have_pages(packed, tmp_path):
    path = tmp_path / "old.h5"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    text = page({str(path): read_run(path)})
    assert Checked(text).open == [] and "Who holds what" in text


def test_a_page_is_not_written_over_the_run(fedmpi, pages):
    run = pages["one"].with_suffix(".h5")
    before = run.read_bytes()
    (run.parent / "page").symlink_to(run)
    for command, option, out, *runs in (("report", "-o", run, run), ("report", "-o", run, run.parent / "other.h5"),
                                        ("report", "-o", run.parent / "page", run), ("merge", "--out", run, run)):
        told = fedmpi(1, command, option, out, *runs, code=2)
        assert "is a run file, or named like one" in told and run.read_bytes() == before


# --- in a real browser ---

OUTSIDE = """(() => {
  document.querySelectorAll('details').forEach(each => each.open = true);
  const width = document.documentElement.clientWidth, found = [];
  for (const each of document.querySelectorAll('body *')) {
    const box = each.getBoundingClientRect();
    if (box.width > 1 && (box.right > width + 1 || box.left < -1) && !each.closest('svg') && !each.closest('thead'))
      found.push([each.tagName, each.className, Math.round(box.right), each.textContent.slice(0, 40)].join(' '));
  }
  return [document.documentElement.scrollWidth > width ? 'scrolls' : '', ...found].filter(Boolean).slice(0, 5);
})()"""
CUT = """(() => {
  const found = [];
  for (const svg of document.querySelectorAll('figure svg')) {
    const whole = svg.getBoundingClientRect();
    for (const text of svg.querySelectorAll('text')) {
      const box = text.getBoundingClientRect();
      if (box.left < whole.left - 2 || box.right > whole.right + 2 || box.top < whole.top - 2 ||
          box.bottom > whole.bottom + 2)
        found.push(text.textContent);
    }
  }
  return found;
})()"""
SMALL = """Math.min(...[...document.querySelectorAll('body *')].filter(each => each.children.length == 0 &&
  each.textContent.trim() && each.getClientRects().length && !each.closest('thead')).map(each =>
  parseFloat(getComputedStyle(each).fontSize) * (each.closest('figure svg') ?
  each.closest('svg').getBoundingClientRect().width / each.closest('svg').viewBox.baseVal.width : 1)))"""
CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const light = colour => {
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map(
      v => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const root = getComputedStyle(document.documentElement), paper = light(root.getPropertyValue('--paper'));
  return ['ink', 'quiet', 'link', 'c0', 'c1', 'c2', 'c3', 'c4', 'c5'].map(name => {
    const other = light(root.getPropertyValue('--' + name));
    return (Math.max(paper, other) + 0.05) / (Math.min(paper, other) + 0.05);
  });
})()"""

@pytest.fixture(scope="module")
def browser():
    program = find_browser()
    if program is None:
        pytest.skip(f"no {' or '.join(NAMES[:3])}: apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="fedmpi-browser-") as folder:
        found = Browser(program, folder)
        yield found
        found.close()


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_the_window_and_no_word_is_cut(browser, pages, name):
    for width in WIDTHS:
        asked = browser.look(pages[name], width)
        assert [each for each in asked if not each.startswith("data:")] == [f"file://{pages[name]}"]
        assert browser.complaints() == []
        assert browser.value(OUTSIDE) == [], width
        assert browser.value(CUT) == [], width
    assert len(browser.value("document.body.innerText")) > 150


@pytest.mark.parametrize("name", ["one", "several"])
def test_type_on_a_phone_can_be_read(browser, pages, name):
    browser.look(pages[name], 360)
    assert browser.value(SMALL) >= 11
    assert browser.value("parseFloat(getComputedStyle(document.body).fontSize)") >= 16


def test_a_page_is_the_same_without_scripts(browser, pages, tmp_path):
    for scripts in (True, False):
        browser.look(pages["faulty"], 360, scripts=scripts)
        browser.screenshot(tmp_path / f"{scripts}.png")
    assert (tmp_path / "True.png").read_bytes() == (tmp_path / "False.png").read_bytes()
    assert (tmp_path / "True.png").stat().st_size > 50_000


def test_light_and_dark_have_contrast(browser, pages):
    grounds = []
    for dark in (False, True):
        browser.look(pages["one"], 1280, dark=dark)
        ink, quiet, link, *lines = browser.value(CONTRAST)
        assert ink > 10 and quiet > 4.5 and link > 4.5 and min(lines) > (3 if dark else 2)
        grounds.append(browser.value("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] == "rgb(255, 255, 255)" != grounds[1]


@pytest.mark.parametrize("name", ["faulty", "several"])
def test_on_paper_folds_are_open_and_links_gone(browser, pages, tmp_path, name):
    browser.look(pages[name], 690, dark=True)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.value("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.value("[...document.querySelectorAll('details.printed')].every(each => "
                             "each.lastElementChild.getBoundingClientRect().height > 20)")
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
    data = browser.printed(tmp_path / "page.pdf")
    sheets = len(re.findall(rb"/Type /Page\b", data))
    assert data.startswith(b"%PDF") and 3 <= sheets <= 8, sheets


def test_twelve_runs_take_eight_sheets_and_headings_stay_with_what_they_head(browser, pages, tmp_path):
    browser.look(pages["twelve"], 690)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        told = browser.value("document.body.innerText")
        assert "one run of each of 4 set-ups; the parts of the other 8 runs are in the file" in told
        shown = browser.value("[...document.querySelectorAll('details.run')].map(each => "
                              "each.getBoundingClientRect().height > 100)")
        assert shown == [True, False, False] * 4
        kept = browser.value("[...document.querySelectorAll('h2,h3,summary')].map(each => "
                             "getComputedStyle(each).breakAfter)")
        assert len(kept) > 30 and set(kept) == {"avoid"}
        whole = browser.value("[...document.querySelectorAll('figure,tr')].map(each => "
                              "getComputedStyle(each).breakInside)")
        assert set(whole) == {"avoid"}
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
    sheets = len(re.findall(rb"/Type /Page\b", browser.printed(tmp_path / "page.pdf")))
    assert 4 <= sheets <= 8, sheets
