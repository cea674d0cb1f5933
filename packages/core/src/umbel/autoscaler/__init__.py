"""What programs may ask of a cluster that launches its nodes, with the names and the behaviour of `ray.autoscaler`."""

from umbel._client import modules as _modules

__getattr__ = _modules.attributes_of(__name__, ["sdk"])
