"""`python -m tinypeft`, the same as the command `tinypeft`."""

from tinypeft.cli import main

if __name__ == "__main__":
    main(prog_name="tinypeft")
