"""DexLoop's controller as a LeRobot policy. Importing it makes ``--policy.type=dexloop_controller`` known."""

from .configuration_dexloop_controller import DexloopControllerConfig

__all__ = ["DexloopControllerConfig"]
