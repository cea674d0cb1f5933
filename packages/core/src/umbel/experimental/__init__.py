"""What Ray has in a module of this name and its programs import, as far as it means something here."""
