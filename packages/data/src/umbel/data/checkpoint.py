"""Writes that go on where a killed driver has left them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from umbel import exceptions

__all__ = ["CheckpointConfig"]


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Where a write notes which parts of its input are done, so that the same write, run again with the same path, does the rest.

    For `DataContext.checkpoint_config`, or as `checkpoint=` of a `write_...` method. What comes out is the same as without an
    interruption, each row once. Another plan, other input files or another destination are an error (ValueError).

    checkpoint_path: a directory on any file system, one for each write; made if it is not there. On a cluster it must be
    reachable from wherever the driver may run, and what is written to from all nodes.
    delete_checkpoint_on_success: what was noted is removed once all is written; else a further run finds that all is done, and
    does nothing.
    override_filesystem: of pyarrow or fsspec; by the URI otherwise.
    compares_functions: whether a function whose code has changed counts as another plan. False to go on with one that was
    mended; its name still has to be the same.
    id_column: not needed, as rows are not looked at; here for code written for Ray Data.
    """

    checkpoint_path: str
    delete_checkpoint_on_success: bool = True
    override_filesystem: Any = None
    compares_functions: bool = True
    id_column: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.checkpoint_path, str) or not self.checkpoint_path:
            raise exceptions.InvalidOptionType(
                f"checkpoint_path must be the path or URI of a directory, got {self.checkpoint_path!r}",
                option="checkpoint_path",
            )


def config_of(given: CheckpointConfig | str | None) -> CheckpointConfig | None:
    """A path stands for a config with this path."""
    if given is None or isinstance(given, CheckpointConfig):
        return given
    return CheckpointConfig(checkpoint_path=given)
