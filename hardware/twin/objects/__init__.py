"""Household-like objects: generated shapes, their catalogue by split, and how they enter a MuJoCo model."""

from .attach import add_object as add_object
from .catalogue import FAMILIES as FAMILIES
from .catalogue import SPLITS as SPLITS
from .catalogue import generate_object as generate_object
from .catalogue import shape_of as shape_of
from .grasp_info import Placement as Placement
from .grasp_info import placement as placement
from .grasp_info import surface_points as surface_points
from .spec import ObjectSpec as ObjectSpec
