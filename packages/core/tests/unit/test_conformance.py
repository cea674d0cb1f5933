"""The built-in plugins pass the suites that outside ones have to pass."""

from __future__ import annotations

from umbel._plugins import builtin
from umbel.testing.conformance import AcceleratorConformance, SchedulerConformance, StoreConformance

SCHEDULERS = {descriptor.name: descriptor for descriptor in builtin.umbel_schedulers()}


class TestHybridScheduler(SchedulerConformance):
    descriptor = SCHEDULERS["hybrid"]


class TestSpreadScheduler(SchedulerConformance):
    descriptor = SCHEDULERS["spread"]


class TestSharedMemoryStore(StoreConformance):
    (descriptor,) = builtin.umbel_stores()


class TestNvidia(AcceleratorConformance):
    (descriptor,) = builtin.umbel_accelerators()
