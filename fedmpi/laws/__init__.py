"""Laws for every part, for tests of methods: ``laws.check("codec", "mine:mine")``.

The catalogue's own parts are held to them by the suite. ``samples`` has the laws' own small
layouts, updates and tasks, for exact tests beside them.
"""

from fedmpi.laws.check import check
from fedmpi.laws.samples import (random_updates, small_cohort, small_layout, small_task)

__all__ = ["check", "random_updates", "small_cohort", "small_layout", "small_task"]
