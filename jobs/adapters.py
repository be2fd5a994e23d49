"""Split tiny Shakespeare by speakers, and tell the runs of jobs/adapters.sh as a table.

    adapters.py split INPUT.txt FOLDER      FOLDER/first and FOLDER/second, each a tinyshakespeare/input.txt
    adapters.py best RUN.h5 ...             the run with the least validation loss at its end
    adapters.py table FOLDER                mean and range over seeds, by method
"""

import pathlib
import sys
from collections import defaultdict

import numpy as np

from fedmpi.methods.datasets.shakespeare import speeches
from fedmpi.store import read_run


def split(source, folder):
    """Speakers in the order of their text's length go to the two halves in turn."""
    content = pathlib.Path(source).read_text(encoding="utf-8")
    spoken = speeches(content)
    names = sorted(spoken, key=lambda name: len(spoken[name]), reverse=True)
    # A block before the first speaker is nobody's text: both halves have the same characters.
    alphabet = "".join(sorted(set(content) - {"\n"}))
    for half, some_names in (("first", names[0::2]), ("second", names[1::2])):
        place = pathlib.Path(folder) / half / "tinyshakespeare"
        place.mkdir(parents=True, exist_ok=True)
        blocks = [alphabet]
        for name in some_names:
            # No blank line within a text: it would end the block.
            lines = [line for line in spoken[name].splitlines() if line]
            blocks.append("\n".join([f"{name}:", *lines]))
        (place / "input.txt").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def last(path, column):
    """The column's value after the last round."""
    return float(read_run(path).rounds[column][-1])


def best(paths):
    """The path of the run with the least validation loss."""
    print(min(paths, key=lambda path: last(path, "val_loss")))


def table(folder):
    """Print a row a method, of its runs METHOD-lrRATE-sSEED.h5 in the folder."""
    runs = defaultdict(list)
    for path in sorted(pathlib.Path(folder).glob("*-s*.h5")):
        method, rate, _ = path.stem.rsplit("-", 2)
        runs[method, rate].append(path)
    print("| method | rate | seeds | test nats | validation nats | KB up a client and round | KB down |")
    print("|---|---|---|---|---|---|---|")
    for (method, rate), paths in runs.items():
        losses = np.array([last(path, "nats") for path in paths])
        validated = np.mean([last(path, "val_nats") for path in paths])
        rows = read_run(paths[0]).rounds
        asked = rows["asked"].sum()
        up, down = (rows[name].sum() / asked / 1000 for name in ("up_bytes", "down_bytes"))
        spread = f"{losses.mean():.4f} ({losses.min():.4f} to {losses.max():.4f})"
        print(f"| {method} | {rate.removeprefix('lr')} | {len(paths)} | {spread} | {validated:.4f} | {up:.1f} "
              f"| {down:.1f} |")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"split": split, "best": lambda *paths: best(paths), "table": table}[command](*arguments)
