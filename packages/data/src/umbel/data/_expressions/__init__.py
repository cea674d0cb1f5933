"""Expressions: what they are (`nodes`), what they cost in types (`typing`), what they give (`evaluate`), what a
reader may do of them (`pushdown`), how they are written (`expr`, `parse`) and printed (`printing`)."""
