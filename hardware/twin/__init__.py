"""The MuJoCo twin of the rig: model, scenes, controllers, cameras."""

import os
import sys

# Headless unless asked otherwise: MuJoCo chooses its OpenGL backend when it is first imported, and nothing here opens
# a window.
if sys.platform.startswith("linux"):
    os.environ.setdefault("MUJOCO_GL", "egl")
