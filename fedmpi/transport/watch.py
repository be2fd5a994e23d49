"""Who was heard last, and who is silent for too long: the reckoning, without messages or threads."""

from typing import NamedTuple

SILENCE_S = 60.0          # after so long without a sign a rank counts as lost; 0: never
START = 10                # times that long may pass until all are ready: 33 imports of torch on 2 cores take a minute


class Limits(NamedTuple):
    """How long other ranks are waited for, in seconds; 0: for ever."""

    silence_s: float = SILENCE_S      # without a sign of life
    task_s: float = 0.0               # at one job, alive or not


class Watch:
    """The peers that are to be heard, each with the time of its last sign. ``now`` is in seconds, of any clock."""

    def __init__(self, peers, silence_s, now):
        self.heard, self.silence_s, self.looked = dict.fromkeys(peers, now), silence_s, now
        self.interval_s = min(silence_s / 6, 5.0)

    def hear(self, peer, now):
        if peer in self.heard:
            self.heard[peer] = now

    def leave(self, peer):
        """``peer`` has said that it goes."""
        self.heard.pop(peer, None)

    def silent(self, now):
        """``{peer: seconds without a sign}`` of those that are lost. To be asked every ``interval_s``: a time in which
        nobody asked is one in which we were halted ourselves, perhaps the others too, and counts for nothing."""
        away = now - self.looked - 2 * self.interval_s
        if away > 0:
            self.heard = {peer: min(last + away, now) for peer, last in self.heard.items()}
        self.looked = now
        return {peer: now - last for peer, last in self.heard.items() if now - last > self.silence_s > 0}
