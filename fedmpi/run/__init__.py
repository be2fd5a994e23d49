"""One training run on as many ranks as the launcher has started."""
