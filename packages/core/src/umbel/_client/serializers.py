"""Custom serializers and serializability, for `umbel.util`."""

from umbel._objects.serialization import register as register
from umbel._objects.serialization import serialize as serialize
from umbel._objects.serialization import unregister as unregister
