"""What one object is, as a value: everything needed to build it again, and what an expert may know of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BadInput

Array = NDArray[np.float64]
Vec3 = tuple[float, float, float]

FORMAT = 1


@dataclass(frozen=True)
class ObjectSpec:
    """One object. Its frame: origin at the centre of its bounding box, z up when it stands.

    ``family`` and ``params`` give the shape; for a third-party object ``family`` is ``third_party`` and ``source``
    its file. ``rgb`` is the resolved colour whose name is ``colour``.
    """

    name: str  # unique: split, number, family
    noun: str  # "cup"
    colour: str  # "red"
    family: str
    split: str
    seed: int
    params: tuple[tuple[str, float], ...]
    size_m: Vec3  # full extents of the bounding box in the object frame
    mass_kg: float
    friction: Vec3  # sliding (-), torsional (m), rolling (m)
    material: str
    pattern: str
    rgb: Vec3
    accent_rgb: Vec3
    symmetry: str  # round: any turn about z; sphere; none
    fingerprint: str  # the cell of shape parameters that it lies in: no two splits share one
    source: str = ""

    @property
    def parameters(self) -> dict[str, float]:
        return dict(self.params)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ObjectSpec:
        """Raises BadInput when a field is missing or unknown."""
        fields = dict(data)
        try:
            fields["params"] = tuple((str(name), float(value)) for name, value in fields["params"])
            for key in ("size_m", "friction", "rgb", "accent_rgb"):
                x, y, z = fields[key]
                fields[key] = (float(x), float(y), float(z))
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"an object description does not fit ({error}): expected the fields of ObjectSpec, format {FORMAT}; "
                "record the scene again or convert it"
            ) from error
