"""The meaning of measured facts: a function a topic, which yields findings. Pure."""
