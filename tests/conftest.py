"""Shared by all tests: one thread per process, software rendering, hypothesis without deadlines."""

from __future__ import annotations

import os

# Before NumPy, MuJoCo or torch are imported: two test processes share two cores.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from hypothesis import HealthCheck, settings

settings.register_profile("dexloop", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)
settings.load_profile("dexloop")
