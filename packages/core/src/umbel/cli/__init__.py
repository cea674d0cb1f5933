"""The `umbel` command. `main` is its entry point; each subcommand comes from a plugin, the built-in ones too."""

from umbel.cli.group import main as main

__all__ = ["main"]
