"""The door of the command line; see cli.py."""

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["doctor"]:  # before anything is imported that may be missing
        from mimlib.machine import doctor

        return doctor.report()
    from mimlib import cli

    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
