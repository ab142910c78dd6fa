"""Settings for the whole suite."""

import os

from hypothesis import HealthCheck, settings

# Before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Examples include the first call of freshly compiled numba code: no deadline holds for those.
settings.register_profile(
    "actgrid", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("actgrid")
