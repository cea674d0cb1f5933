"""What programs may ask of a cluster that launches its nodes, with the names and the behaviour of `ray.autoscaler`."""

from umbel._client.modules import autoscaler_attribute as __getattr__  # noqa: F401 - says what is missing
