"""A mesh file as a physical shape: checked, mended, cut into convex pieces by CoACD, and kept on disk.

CoACD takes 1 to 23 s an object, so its answer is stored under ``<cache>/objects/<sha256>.npz``, keyed by the file's
content and everything that shapes the answer.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from .objects.meshes import Mesh, hull, planar_uv
from .objects.parts import Part, Shape, Vec3, look_of, solid_of

if TYPE_CHECKING:
    import trimesh

Array = NDArray[np.float64]

SUFFIXES = (".obj", ".stl", ".ply", ".glb", ".gltf", ".off")
UNITS_M = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inch": 0.0254}
SIZE_M = (0.01, 0.6)  # the longest side of anything that belongs on this table
_CACHE_VERSION = 2
_SKIN_FACES = 1500
_PIECE_CORNERS = 48
_CONVEX = 0.97  # of the hull's volume: above this a mesh is its own convex piece


@dataclass(frozen=True)
class Cutting:
    """How a mesh is cut into convex pieces (CoACD)."""

    threshold: float = 0.08  # concavity that may remain, relative to the size
    max_pieces: int = 24

    def __post_init__(self) -> None:
        if not 0.01 <= self.threshold <= 1.0:
            raise BadInput(f"threshold is {self.threshold}: CoACD takes 0.01 (fine) to 1 (coarse)")
        if not 1 <= self.max_pieces <= 200:
            raise BadInput(f"max_pieces is {self.max_pieces}: expected 1 to 200")


def cache_dir() -> Path:
    """``$DEXLOOP_HOME/cache``, or ``~/.cache/dexloop``."""
    home = os.environ.get("DEXLOOP_HOME")
    return (Path(home).expanduser() / "cache" if home else Path.home() / ".cache" / "dexloop") / "objects"


def content_key(path: Path, unit: str, cutting: Cutting) -> str:
    """What the cached shape of a file is stored under."""
    digest = hashlib.sha256(path.read_bytes())
    digest.update(f"{_CACHE_VERSION} {path.suffix.lower()} {unit} {cutting.threshold} {cutting.max_pieces}".encode())
    return digest.hexdigest()[:32]


@dataclass(frozen=True)
class Cut:
    """What a mesh file became."""

    shape: Shape  # m, centred on its bounding box; the first part is the skin
    key: str  # of its cache entry
    rgb: Vec3 | None  # the file's own colour, where it has one


def shape_from_mesh(path: Path, unit: str, cutting: Cutting) -> Cut:
    """A mesh file as a shape. Cuts it only when the cache lacks it.

    Raises BadInput, naming the file, for what cannot become a solid object.
    """
    key = content_key(path, unit, cutting)
    stored = cache_dir() / f"{key}.npz"
    known = _read_cache(stored)
    if known is None:
        mesh = load_solid(path, unit)
        known = _centred(_skin(mesh), _convex_pieces(mesh, cutting, path)), _colour(mesh)
        _write_cache(stored, *known)
    return Cut(known[0], key, known[1])


def load_solid(path: Path, unit: str) -> trimesh.Trimesh:
    """Read a mesh, scale it to metres, mend small damage. Raises BadInput when it is no closed solid of table size."""
    import trimesh

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mesh: Any = trimesh.load(path, force="mesh")
    except Exception as error:  # a parser may fail in any way on a foreign file
        raise BadInput(f"{path} cannot be read as a mesh ({type(error).__name__}: {error})") from error
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise BadInput(f"{path} holds no triangles: expected a mesh with faces, not points or lines")
    if not np.isfinite(mesh.vertices).all():
        raise BadInput(f"{path} has vertices that are not finite numbers: export it again")
    mesh.apply_scale(UNITS_M[unit])
    _check_size(path, mesh.extents, unit)
    _mend(path, mesh)
    return mesh


def _check_size(path: Path, extents: Array, unit: str) -> None:
    longest = float(extents.max())
    if SIZE_M[0] <= longest <= SIZE_M[1]:
        return
    raw = longest / UNITS_M[unit]
    fitting = [name for name, scale in UNITS_M.items() if SIZE_M[0] <= raw * scale <= SIZE_M[1]]
    advice = (
        f"it would fit as unit={' or '.join(map(repr, fitting))}" if fitting else "no unit makes it fit: scale the file"
    )
    raise BadInput(
        f"{path} is {longest:.4g} m long when its numbers are read as {unit}: expected {SIZE_M[0]} to "
        f"{SIZE_M[1]} m; {advice}"
    )


def _mend(path: Path, mesh: trimesh.Trimesh) -> None:
    """Weld, fill small holes, make faces agree; refuse what stays open."""
    import trimesh

    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    mesh.update_faces(mesh.nondegenerate_faces())
    mesh.remove_unreferenced_vertices()
    if not mesh.is_watertight:
        trimesh.repair.fill_holes(mesh)
    if not mesh.is_winding_consistent or mesh.volume < 0:
        trimesh.repair.fix_normals(mesh)
    if not mesh.is_watertight:
        edges, uses = np.unique(mesh.edges_sorted, axis=0, return_counts=True)
        raise BadInput(
            f"{path} is not a closed solid: {int((uses != 2).sum())} of {len(edges)} edges lack a second face even "
            "after welding and filling small holes; close it in a mesh editor (a wall needs two sides)"
        )
    if mesh.volume < 1e-8:
        raise BadInput(f"{path} encloses {1e6 * mesh.volume:.3g} cm3: expected a solid of at least 0.01 cm3")


def _convex_pieces(mesh: trimesh.Trimesh, cutting: Cutting, path: Path) -> list[Mesh]:
    whole = hull(np.asarray(mesh.vertices))
    if mesh.volume >= _CONVEX * whole.volume_m3:
        return [whole if len(whole.vertices) <= _PIECE_CORNERS else _coarser(whole)]
    import coacd

    coacd.set_log_level("error")
    found = coacd.run_coacd(
        coacd.Mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces)),
        threshold=cutting.threshold,
        max_convex_hull=cutting.max_pieces,
        decimate=True,
        max_ch_vertex=_PIECE_CORNERS,
        seed=0,
    )
    pieces = []
    for vertices, _ in found:
        points = np.asarray(vertices, float)
        # A sliver without volume carries nothing and cannot be a MuJoCo hull.
        if np.ptp(points, axis=0).min() > 1e-5 and hull(points).volume_m3 > 1e-10:
            pieces.append(hull(points))
    if not pieces:
        raise BadInput(f"{path} fell apart into slivers: is it a sheet? expected a solid with walls of at least 1 mm")
    return pieces


def _coarser(mesh: Mesh) -> Mesh:
    """A convex mesh with few corners: its extreme points along directions spread evenly (Fibonacci)."""
    k = np.arange(2 * _PIECE_CORNERS) + 0.5
    polar, azimuth = np.arccos(1 - 2 * k / len(k)), np.pi * (1 + 5**0.5) * k
    directions = np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], -1)
    return hull(mesh.vertices[np.unique((mesh.vertices @ directions.T).argmax(0))])


def _skin(mesh: trimesh.Trimesh) -> Mesh:
    """What is seen: the mesh itself, thinned by clustering vertices where it has too many faces to draw quickly."""
    vertices, faces = np.asarray(mesh.vertices, float), np.asarray(mesh.faces)
    cell = float(mesh.extents.max()) / 60
    while len(faces) > _SKIN_FACES:
        _, label = np.unique(np.round(vertices / cell).astype(np.int64), axis=0, return_inverse=True)
        label = label.ravel()
        count = np.bincount(label)
        vertices = np.stack([np.bincount(label, vertices[:, k]) / count for k in range(3)], -1)
        faces = label[faces]
        faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
        cell *= 1.3
    return Mesh(vertices, faces.astype(np.int32), planar_uv(vertices))


def _colour(mesh: trimesh.Trimesh) -> Vec3 | None:
    """The colour that a file gives its mesh: its vertices' or faces', its texture's mean, its material's."""
    visual = mesh.visual
    if not visual.defined:
        return None
    if visual.kind == "texture":
        material = visual.material
        image = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
        colour = np.asarray(image.convert("RGB")).reshape(-1, 3).mean(0) if image else np.asarray(material.main_color)
    else:
        colour = np.asarray(visual.main_color)
    r, g, b = (float(v) / 255 for v in colour[:3])
    return r, g, b


def _centred(skin: Mesh, pieces: list[Mesh]) -> Shape:
    corners = np.concatenate([piece.vertices for piece in pieces])
    middle = (corners.max(0) + corners.min(0)) / 2

    def moved(mesh: Mesh) -> Mesh:
        return Mesh(mesh.vertices - middle, mesh.faces, mesh.uv, mesh.aspect)

    return Shape((look_of(moved(skin)), *(solid_of(moved(piece)) for piece in pieces)))


def _write_cache(path: Path, shape: Shape, rgb: Vec3 | None) -> None:
    arrays: dict[str, Any] = {"rgb": np.array(rgb if rgb else [])}
    for index, part in enumerate(shape.parts):
        assert part.mesh is not None
        arrays[f"vertices_{index}"], arrays[f"faces_{index}"] = part.mesh.vertices, part.mesh.faces
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed: two processes may cut the same object, none may read half a file.
    handle, aside = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(aside, path)


def _read_cache(path: Path) -> tuple[Shape, Vec3 | None] | None:
    """The stored shape and colour, or None when there is none or it is damaged (it is then made again)."""
    try:
        with np.load(path) as stored:
            count = sum(name.startswith("faces_") for name in stored.files)
            meshes = [Mesh(v := stored[f"vertices_{k}"], stored[f"faces_{k}"], planar_uv(v)) for k in range(count)]
            rgb = tuple(stored["rgb"].tolist()) or None
    except (OSError, ValueError, KeyError, EOFError):
        return None
    except Exception as error:  # zipfile raises its own kinds for a torn archive
        if type(error).__module__ != "zipfile":
            raise
        return None
    parts: list[Part] = [look_of(meshes[0]), *(solid_of(mesh) for mesh in meshes[1:])]
    return (Shape(tuple(parts)), rgb) if len(parts) > 1 else None
