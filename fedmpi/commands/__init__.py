"""Commands of the command line, one module each; fedmpi/cli.py adds them."""
