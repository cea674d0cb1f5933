"""What a rank of a group waits for, as a reason."""

from __future__ import annotations

from collections.abc import Sequence

from umbel._model import reasons


def in_operation(operation: str, *, group_name: str, rank: int, awaited: Sequence[int], for_s: float) -> reasons.Reason:
    """operation: as the ranks call it; "" for the first steps of a group. awaited: the ranks that have not come so far;
    none while the backend is at work."""
    text = f"is in {operation or 'the first step'} in group {group_name!r} as rank {rank}"
    if awaited:
        text += f", and waits for {ranks_in_words(awaited)}, for {for_s:.1f} s"
    return _reason(text, group_name=group_name, rank=rank, awaited=awaited, for_s=for_s, operation=operation)


def coming_together(*, group_name: str, rank: int, awaited: Sequence[int] | None, for_s: float) -> reasons.Reason:
    """awaited: the ranks that have not come; None where only the rank that came first knows them."""
    whom = "the others" if awaited is None else ranks_in_words(awaited)
    text = f"joins group {group_name!r} as rank {rank}, and waits for {whom}, for {for_s:.1f} s"
    return _reason(text, group_name=group_name, rank=rank, awaited=awaited or (), for_s=for_s, operation="")


def ranks_in_words(ranks: Sequence[int]) -> str:
    return f"rank{'s'[: len(ranks) > 1]} {', '.join(map(str, sorted(ranks)))}"


def _reason(
    text: str, *, group_name: str, rank: int, awaited: Sequence[int], for_s: float, operation: str
) -> reasons.Reason:
    facts = {"group": group_name, "rank": rank, "operation": operation, "awaited": sorted(awaited), "for_s": for_s}
    return reasons.Reason(reasons.COLLECTIVE, "it", text, facts=facts)
