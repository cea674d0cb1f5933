"""Which plugins there are, what they provide, and which of it is used."""
