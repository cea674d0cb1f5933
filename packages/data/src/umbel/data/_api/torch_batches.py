"""What becomes of a batch of torch tensors before it is given out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def finisher(*, dtypes: Any, device: Any, collate: Callable[[Any], Any] | None, pins: bool) -> Callable[[Any], Any]:
    """dtypes: one for all columns, or by name. device: "auto" for that of this process's GPU, or the CPU. pins: to memory that
    a GPU reads from. What `collate` makes is moved too, where it is tensors, in dictionaries, lists and tuples."""
    if collate is not None and dtypes is not None:
        raise ValueError("dtypes is for batches that are made here; convert them in collate_fn, or leave that out")
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("iter_torch_batches needs torch; pip install torch") from error
    where = _device(torch, device)

    def finish(batch: Any) -> Any:
        made = collate(batch) if collate is not None else cast(batch, dtypes)
        return _moved(torch, made, where, pins=pins)

    return finish


def _device(torch: Any, device: Any) -> Any:
    if device == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    return torch.device(device) if device is not None else None


def cast(batch: Mapping[str, Any], dtypes: Any) -> dict[str, Any]:
    """dtypes: one for all columns, or by name."""
    if dtypes is None:
        return dict(batch)
    if not isinstance(dtypes, Mapping):
        return {name: one.to(dtypes) for name, one in batch.items()}
    unknown = [name for name in dtypes if name not in batch]
    if unknown:
        raise KeyError(f"dtypes names {unknown[0]!r}, which is no column; there are {', '.join(map(repr, batch))}")
    return {name: one.to(dtypes[name]) if name in dtypes else one for name, one in batch.items()}


def _moved(torch: Any, value: Any, device: Any, *, pins: bool) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.pin_memory() if pins else value
        return value if device is None or value.device == device else value.to(device, non_blocking=pins)
    if isinstance(value, Mapping):
        return {name: _moved(torch, one, device, pins=pins) for name, one in value.items()}
    if isinstance(value, list | tuple):
        made = [_moved(torch, one, device, pins=pins) for one in value]
        return made if isinstance(value, list) else tuple(made)
    return value
