"""``python -m rlhfctl`` and the ``rlhfctl`` command."""

from __future__ import annotations


def main() -> None:
    """Run the command line and end the process with its exit code."""
    from rlhfctl.run import stop

    stop.install()
    from rlhfctl.cli.app import app

    app()


if __name__ == "__main__":
    main()
