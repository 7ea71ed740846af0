"""Recorded episodes as the moments that a policy saw: decoded one after another, as a live robot would give them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...datasets.reader import DatasetReader, EpisodeMeta
from ...datasets.schema import STATE, CameraSchema
from ...hardware.errors import BadInput
from ..views import Observation, View


def observations(reader: DatasetReader, episode: int, views: Iterable[View]) -> Iterator[Observation]:
    """The episode's moments in order, with no more decoded than ``views`` show.

    A colour picture that no view shows is black, a mask that none needs is empty. Raises BadInput where a view needs a
    camera, its depth or masks and the data set has none, DatasetError where a file is damaged.
    """
    views = tuple(views)
    cameras = {view.camera: camera_of(reader, view) for view in views}
    colour = {view.camera for view in views if view.rgb}
    depth = {view.camera for view in views if view.depth}
    meta = reader.meta(episode)
    states = np.asarray(reader.episode(episode).columns[STATE])
    masks = reader.masks(episode) if needs_masks(views) else None
    empty = np.zeros((1, 1), bool)
    black = {
        name: np.broadcast_to(np.uint8(0), (camera.height, camera.width, 3))
        for name, camera in cameras.items()
        if name not in colour
    }
    rgb = {name: reader.stream(episode, cameras[name].key) for name in colour}
    counts = {name: reader.stream(episode, cameras[name].depth_key) for name in depth}
    for row in range(meta.rows):
        pictures: dict[str, Any] = black | {name: next(frames) for name, frames in rgb.items()}
        metres = {name: to_metres(next(frames), cameras[name]) for name, frames in counts.items()}
        yield Observation(states[row], pictures, metres, empty if masks is None else masks[row])


def camera_of(reader: DatasetReader, view: View) -> CameraSchema:
    """The recorded camera of a view. Raises BadInput where there is none, or it has no depth and the view wants it, or
    the view wants the mask of another camera than the one that masks were recorded of."""
    cameras = {camera.name: camera for camera in reader.schema.cameras}
    name, root = view.camera, reader.root.name
    if name not in cameras:
        raise BadInput(f"the controller needs camera {name!r}, {root} has {', '.join(cameras)}: record with it.")
    if view.depth and not cameras[name].depth_unit_m:
        raise BadInput(
            f"the controller needs the depth of camera {name!r}, {root} has none: record with `collect --depth`."
        )
    if needs_masks([view]) and name != reader.schema.mask_camera:
        raise BadInput(
            f"the controller needs masks of camera {name!r}, {root} has those of {reader.schema.mask_camera!r}: choose "
            "another controller or data set."
        )
    return cameras[name]


def needs_masks(views: Iterable[View]) -> bool:
    """Whether any view shows the mask, or is placed by it."""
    return any(view.mask or view.window for view in views)


def to_metres(counts: NDArray[np.generic], camera: CameraSchema) -> NDArray[np.float32]:
    """Depth counts of a camera -> metres, 0 stays 0 = invalid. ``depth_counts`` of datasets/video.py is the inverse."""
    return np.multiply(counts, np.float32(camera.depth_unit_m), dtype=np.float32)


def identity(reader: DatasetReader, meta: EpisodeMeta, views: Iterable[View]) -> dict[str, Any]:
    """What the views' pictures of an episode follow from: its rows and the checksums of the files that are read.

    Another LeRobot tool drops the checksums; size and time of the files stand for them then.
    """
    views = tuple(views)
    keys = {camera_of(reader, view).key for view in views if view.rgb}
    keys |= {camera_of(reader, view).depth_key for view in views if view.depth}
    files: dict[str, Any] = {}
    for key in sorted(keys | ({"data"} if needs_masks(views) else set())):
        path, start_s = (meta.data_path, 0.0) if key == "data" else meta.videos[key]
        status = path.stat() if path.exists() else None
        times = (status.st_mtime_ns,) if status and key not in meta.checksums else ()
        place = meta.index if key == "data" else start_s  # of the episode in the file, where it holds several
        files[key] = [meta.checksums.get(key), status.st_size if status else None, *times, place]
    return {"rows": meta.rows, "files": files}
