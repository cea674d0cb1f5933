"""What plugin authors and our own tests use: conformance suites, and the simulator of the state machines."""
