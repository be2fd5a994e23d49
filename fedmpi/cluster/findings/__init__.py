"""The meaning of measured facts: a module a topic, with pure functions yielding findings."""
