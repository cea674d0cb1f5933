"""What Ray has in a module of this name and its programs import, as far as it means something here."""

from umbel._client import modules as _modules

__getattr__ = _modules.attributes_of(__name__)  # says what is missing
