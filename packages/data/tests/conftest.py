"""Random examples of data's tests are the same in each run."""

from __future__ import annotations

import hypothesis

hypothesis.settings.register_profile("same", deadline=None, database=None, derandomize=True)
hypothesis.settings.load_profile("same")
