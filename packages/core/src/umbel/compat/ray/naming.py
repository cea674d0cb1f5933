"""What a name of Ray's is called here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

RAY = "ray"
UMBEL = "umbel"
COMPATIBLE_VERSION = "2.60.0"  # whose behaviour ours follows; programs compare it

# The longest first would matter if one were part of another; these differ in case only.
_SPELLINGS = (("Ray", "Umbel"), ("ray", "umbel"), ("RAY", "UMBEL"))
_RENAMED_MODULES = {"rllib": "rl"}
_RENAMED = {"LocalRayletDiedError": "LocalNodeDiedError"}
_RENAMED_BACK = {ours: theirs for theirs, ours in _RENAMED.items()}


def is_ray_module(module: str) -> bool:
    return module == RAY or module.startswith(RAY + ".")


def is_private(name: str) -> bool:
    """Whether a name, or a part of a dotted one, is not meant for programs."""
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def our_module(ray_module: str) -> str:
    """`ray.util.queue` -> `umbel.util.queue`."""
    parts = ray_module.split(".")[1:]
    return ".".join([UMBEL, *(_RENAMED_MODULES.get(part, part) for part in parts)])


def ray_module(our_module: str) -> str:
    """The inverse of `our_module`."""
    back = {ours: theirs for theirs, ours in _RENAMED_MODULES.items()}
    return ".".join([RAY, *(back.get(part, part) for part in our_module.split(".")[1:])])


def our_candidates(name: str) -> Iterable[str]:
    """What `name` may be called here, the likeliest first: most names are the same in both."""
    yield name
    if name in _RENAMED:
        yield _RENAMED[name]
    for theirs, ours in _SPELLINGS:
        if theirs in name:
            yield name.replace(theirs, ours)


def ray_name(name: str) -> str:
    """How Ray calls what is `name` here."""
    if name in _RENAMED_BACK:
        return _RENAMED_BACK[name]
    for theirs, ours in _SPELLINGS:
        name = name.replace(ours, theirs)
    return name


def translated_environment(environment: Mapping[str, str], copied: Mapping[str, str]) -> dict[str, str]:
    """`UMBEL_X` for each `RAY_X` or `RAY_x` in `environment`.

    One that the user has set himself wins; `copied` holds those that were made here before.
    """
    found: dict[str, str] = {}
    for name, value in environment.items():
        if not name.startswith("RAY_"):
            continue
        ours = "UMBEL_" + name.removeprefix("RAY_").upper()  # Ray writes some of its own in lower case
        if ours not in environment or environment[ours] == copied.get(ours):
            found[ours] = value
    return found
