"""What people look at, of a run or a partition: summaries, terminal pictures, figures for print, JSON for scripts.

Columns that a run does not have are left out, never guessed. Rounds are counted from 1 here: "round 12" is the twelfth.
"""

from fedmpi.report.figure import picture_kind
from fedmpi.report.metrics import final_metrics, plain, to_json
from fedmpi.report.outcomes import outcomes, outcomes_text, over_seeds
from fedmpi.report.partition import described
from fedmpi.report.partition_figure import save_partition
from fedmpi.report.partition_text import partition_picture, partition_text
from fedmpi.report.pictures import curves, nice_ticks, picture, save_picture, shares
from fedmpi.report.profile import profile
from fedmpi.report.profile_text import profile_text
from fedmpi.report.statistics import (auc, cosine_distance, entropy_bits, euclidean_distance, max_distance, ranks,
                                      spearman, total_variation)
from fedmpi.report.text import human_bytes, human_seconds, round_line, summary
from fedmpi.report.truth import by_client, judged, quality, quality_found, scores

__all__ = [
    "auc", "by_client", "cosine_distance", "curves", "described", "entropy_bits", "euclidean_distance", "final_metrics",
    "human_bytes", "human_seconds", "judged", "max_distance", "nice_ticks", "outcomes", "outcomes_text", "over_seeds",
    "partition_picture", "partition_text", "picture", "picture_kind", "plain", "profile", "profile_text", "quality",
    "quality_found", "ranks", "round_line", "save_partition", "save_picture", "scores", "shares", "spearman", "summary",
    "to_json", "total_variation"]
