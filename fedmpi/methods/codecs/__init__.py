"""Codecs: the values on the wire, exact, or in fewer bits with a bound on the error.

An update may be encoded with error feedback: a client adds the error of one round to its next
update (``fedmpi.wire.feedback``). Entropy coding shortens the bytes without loss.
"""
