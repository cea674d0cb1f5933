"""What Ray has in a module of this name and its programs import, as far as it means something here."""

from umbel._client.modules import experimental_attribute as __getattr__  # noqa: F401 - says what is missing
