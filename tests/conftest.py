"""Hypothesis draws the same examples in every run, so that a green run stays green; `HYPOTHESIS_PROFILE=explore` draws
new ones.
"""

import os

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
