"""Ray's operations on the tensors of several GPUs of one process, which no backend of Umbel has."""

from __future__ import annotations

from typing import Any, NoReturn

from umbel import exceptions


def _absent(name: str) -> NoReturn:
    raise exceptions.UnsupportedFeature(
        f"{name}_multigpu is not in this version of Umbel: give each GPU a rank of its own, and call {name}"
    )


def allgather_multigpu(*_args: Any, **_options: Any) -> NoReturn:
    _absent("allgather")


def allreduce_multigpu(*_args: Any, **_options: Any) -> NoReturn:
    _absent("allreduce")


def broadcast_multigpu(*_args: Any, **_options: Any) -> NoReturn:
    _absent("broadcast")


def recv_multigpu(*_args: Any, **_options: Any) -> NoReturn:
    _absent("recv")


def reduce_multigpu(*_args: Any, **_options: Any) -> NoReturn:
    _absent("reduce")


def reducescatter_multigpu(*_args: Any, **_options: Any) -> NoReturn:
    _absent("reducescatter")


def send_multigpu(*_args: Any, **_options: Any) -> NoReturn:
    _absent("send")
