import umbel_largest_first

from umbel.testing.conformance import SchedulerConformance


class TestLargestFirst(SchedulerConformance):
    (descriptor,) = umbel_largest_first.umbel_schedulers()
