"""The contract of a user's part: each answer of its functions is checked, at each call.

``bound(kind, made, option)`` is a factory's part, with checks around its functions. A breach is
a UserError of one line: the option, the expected answer, the answer, the way out. Exceptions of
the user's own code pass through. The parts of the catalogue need none of this, the suite holds
them to more; ``fedmpi.build.rehearsal`` says when a part of the user's is first asked.

A module a group of kinds; ``require`` holds the shared checks.
"""

from fedmpi.plugins.contract.kinds import bound

__all__ = ["bound"]
