"""Deliberate defects, each of which the simulator must find: a check that nothing finds anything in is no check.

A module for each world that finds some.
"""

from umbel.testing.simulation.planted.catalogue import PLANTS as PLANTS
from umbel.testing.simulation.planted.defect import Planted as Planted
