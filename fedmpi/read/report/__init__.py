"""Views of a run or a partition for people: summaries, terminal pictures, figures for print, JSON
for scripts.

Columns missing in a run are left out, never guessed. Rounds are counted from 1 here: "round 12" is
the twelfth.
"""

from fedmpi.read.report.comparison import (comparison, comparison_text, refuse_other_data,
                                           without_tuples)
from fedmpi.read.report.figure import picture_kind
from fedmpi.read.report.groups import find_group, grouped
from fedmpi.read.report.kinds import PICTURES
from fedmpi.read.report.metrics import final_metrics, plain, to_json
from fedmpi.read.report.outcomes import outcomes, outcomes_text, over_seeds
from fedmpi.read.report.partition import described
from fedmpi.read.report.partition_figure import save_partition
from fedmpi.read.report.partition_shades import partition_picture
from fedmpi.read.report.partition_text import partition_text
from fedmpi.read.report.pictures import (curves, curves_picture, nice_ticks, picture, save_picture,
                                         shares)
from fedmpi.read.report.plot import save_plot
from fedmpi.read.report.profile import profile
from fedmpi.read.report.profile_text import profile_text
from fedmpi.read.report.statistics import (Interval, auc, cosine_distance, entropy_bits,
                                           euclidean_distance, interval, max_distance,
                                           paired_difference, ranks, spearman, total_variation)
from fedmpi.read.report.summary import summary
from fedmpi.read.report.text import human_bytes, human_seconds, round_line
from fedmpi.read.report.truth import by_client, judged, quality, quality_found, scores

__all__ = [
    "PICTURES", "Interval", "auc", "by_client", "comparison", "comparison_text", "cosine_distance", "curves",
    "curves_picture", "described", "entropy_bits", "euclidean_distance", "final_metrics", "find_group",
    "grouped", "human_bytes", "human_seconds", "interval", "judged", "max_distance", "nice_ticks", "outcomes",
    "outcomes_text", "over_seeds", "paired_difference", "partition_picture", "partition_text", "picture",
    "picture_kind", "plain", "profile", "profile_text", "quality", "quality_found", "ranks",
    "refuse_other_data", "round_line", "save_partition", "save_picture", "save_plot", "scores", "shares",
    "spearman", "summary", "to_json", "total_variation", "without_tuples"]
