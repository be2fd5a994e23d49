"""The pages of the documentation: listed, fitted to the terminal, linked to one another."""

import configparser
import os
import pathlib
import pty
import re
import subprocess
import sys

import pytest
from conftest import environment

from fedmpi.commands import help as pages
from fedmpi.commands.markdown import as_text, blocks, plain

ROOT = pathlib.Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", *sorted(pages.DOCS.glob("*.md")), *sorted((ROOT / "jobs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def test_every_page_is_a_topic():
    assert sorted(pages.TOPICS) == sorted(path.stem for path in pages.DOCS.glob("*.md"))


def test_every_page_begins_with_a_title_and_a_sentence_about_it():
    for topic in pages.TOPICS:
        title, empty, sentence, after = pages.page(topic).splitlines()[:4]
        assert title.startswith("# ") and empty == after == "" and sentence.endswith("."), topic


def test_pages_are_installed_with_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    patterns = config["options.package_data"]["fedmpi"].split()
    installed = {path for pattern in patterns for path in (ROOT / "fedmpi").glob(pattern)}
    assert set(pages.DOCS.iterdir()) <= installed


def test_help_lists_the_topics_with_a_line_each(fedmpi):
    text = fedmpi(1, "help")
    names = re.findall(r"^([a-z-]+)  ", text, re.M)
    assert tuple(names) == pages.TOPICS
    assert "The HDF5 file that a run writes" in text and "fedmpi help TOPIC shows a page" in text


def test_a_page_is_plain_text_in_a_pipe(fedmpi):
    text = fedmpi(1, "help", "time")
    assert text.startswith("Time and devices\n================\n\nVirtual time: ")
    assert "\x1b" not in text and "**" not in text and "](" not in text


@pytest.mark.parametrize("topic, said", [
    ("foo", "unknown topic 'foo'. Topics: tutorial, "), ("studys", "did you mean studies? Topics: "),
    ("train", "train is a command, not a topic: fedmpi train --help. Topics: ")])
def test_a_topic_that_is_none_is_one_line_with_the_choices(fedmpi, topic, said):
    text = fedmpi(1, "help", topic, code=2)
    assert text.startswith("error: ") and said in text and text.count("\n") == 1
    assert all(name in text for name in pages.TOPICS)


@pytest.mark.parametrize("width", [60, 80, 132])
@pytest.mark.parametrize("topic", pages.TOPICS)
def test_pages_fit_the_terminal(topic, width):
    lines = as_text(pages.page(topic), width).splitlines()
    assert [line for line in lines if len(line) > width] == []


@pytest.mark.parametrize("topic", pages.TOPICS)
def test_in_a_wide_terminal_code_stands_as_it_is(topic):
    text = as_text(pages.page(topic), 1000)
    for kind, lines in blocks(pages.page(topic)):
        if kind == "code":
            assert re.sub(r" \\\n +", " ", "\n".join(lines)) in text


@pytest.mark.parametrize("topic", pages.TOPICS)
def test_no_word_is_lost(topic):
    page = pages.page(topic)
    words = set(re.findall(r"\w+", re.sub(r"\]\([^)]*\)|```\w*", "", page)))
    assert words <= set(re.findall(r"\w+", as_text(page, 1000)))


def test_a_long_page_is_paged_in_a_terminal():
    """The pager here marks the lines that it gets."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "fedmpi", "help", "time"]
    env = environment(TERM="xterm", PAGER="sed s/^/paged:/")
    done = subprocess.run(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env, timeout=60)
    os.close(theirs)
    text = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 0 and text.startswith("paged:Time and devices")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in LINK.findall(text):
        file, _, anchor = target.partition("#")
        aim = (path.parent / file) if file else path
        assert aim.exists(), target
        assert not anchor or anchor in anchors(aim), target


def anchors(path):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_the_readme_links_every_page():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"(fedmpi/docs/{topic}.md)" in readme for topic in pages.TOPICS)


def test_no_code_stands_right_behind_a_list():
    """Markdown takes it for a paragraph of the last item."""
    for path in TEXTS:
        kinds = [kind for kind, lines in blocks(path.read_text(encoding="utf-8"))]
        assert ("list", "code") not in list(zip(kinds, kinds[1:])), path


def test_links_name_the_command_that_shows_their_page():
    assert plain("see [time](time.md#own)") == "see time (`fedmpi help time`)"
    assert plain("[results](../../jobs/RESULTS.md), [below](#more)") == "results, below"


def test_code_within_sentences_keeps_its_stars():
    assert plain("**all** of `a**b**c`") == "all of `a**b**c`"


def test_long_commands_are_broken_before_options():
    text = as_text("    fedmpi train --pruner rigl --clients 8 --rounds 20", 40)
    assert text == "    fedmpi train --pruner rigl \\\n        --clients 8 --rounds 20"


def test_comments_move_to_the_left_before_they_move_above():
    page = "    fedmpi show a.h5           # one\n    fedmpi watch a.h5          # the other one"
    assert as_text(page, 40) == "    fedmpi show a.h5   # one\n    fedmpi watch a.h5  # the other one"
    assert as_text(page, 30).splitlines()[1:] == ["    # the other one", "    fedmpi watch a.h5"]


def test_rows_of_long_cells_stand_apart():
    page = "| word | meaning |\n|---|---|\n| a | b |\n| c | some words that go on and on and on |"
    assert as_text(page, 30).splitlines()[:4] == ["word  meaning", "a     b", "", "c     some words that go on"]
    assert as_text(page, 80).splitlines()[:3] == [
        "word  meaning", "a     b", "c     some words that go on and on and on"]
