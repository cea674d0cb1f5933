"""Actors' own functions: `umbel.actor.exit_actor()`."""

from umbel._client.actor import ActorClass as ActorClass
from umbel._client.actor import ActorHandle as ActorHandle
from umbel._client.actor import ActorHandle as ActorProxy  # for annotations, as in Ray
from umbel._client.actor import ActorMethod as ActorMethod
from umbel._client.actor import exit_actor as exit_actor

__all__ = ["ActorClass", "ActorHandle", "ActorMethod", "ActorProxy", "exit_actor"]
