"""`python -m sqzc` is the command `sqzc`."""

from sqzc.cli.main import entry

if __name__ == "__main__":
    entry()
