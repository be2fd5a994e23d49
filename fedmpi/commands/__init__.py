"""Commands of fedmpi, a module each."""
