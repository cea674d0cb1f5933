"""Frozen records that describe the runtime's things: their ids, their resources, their options."""
