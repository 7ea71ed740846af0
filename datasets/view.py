"""An episode to look at: a contact sheet as PNG, and a recording for the Rerun viewer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ..hardware.errors import BadInput
from ..hardware.values import Safety
from . import rle
from .reader import DatasetReader, EpisodeData
from .schema import ACTION, FLAGS, REQUESTED, STATE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NS = 1e9
_TARGET = (1.0, 0.25, 0.1)  # the mask's outline
_LABEL = {True: ("success", "#2e7d32"), False: ("failure", "#c62828"), None: ("not labelled", "#616161")}


def row_seconds(episode: EpisodeData, rate_hz: int) -> NDArray[np.float64]:
    """(rows,) s since the first row: recorded times where there are some, else rows / rate."""
    if "timing.row_ns" in episode.columns:
        row_ns = ns(episode, "timing.row_ns")
        return (row_ns - row_ns[0]) / NS
    return np.arange(episode.rows) / rate_hz


def ns(episode: EpisodeData, key: str) -> NDArray[np.int64]:
    """(rows,) ns of a column."""
    return episode.columns[key].astype(np.int64)


def contact_sheet(reader: DatasetReader, index: int, out: Path, pictures: int = 8) -> Path:
    """A PNG with frames of every camera in rows, the target outlined, and what was measured and commanded below.

    Raises BadInput where there is no such episode.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    episode = reader.episode(index)
    cameras = reader.schema.cameras
    rows = np.unique(np.linspace(0, episode.rows - 1, min(pictures, episode.rows)).astype(int))
    time_s = row_seconds(episode, reader.schema.rate_hz)
    # Pictures keep their shape: their rows are as high as their width asks for.
    shape = max(camera.height / camera.width for camera in cameras)
    picture_in, plots_in, head_in, foot_in = 18 * 0.94 / len(rows) * shape + 0.08, 6.6, 0.8, 0.35
    height = head_in + len(cameras) * picture_in + plots_in + foot_in
    figure = Figure(figsize=(18, height), dpi=100)
    FigureCanvasAgg(figure)
    middle = (foot_in + plots_in) / height
    left, right = 0.045, 0.985
    grid = figure.add_gridspec(
        len(cameras), 1, left=left, right=right, top=1 - head_in / height, bottom=middle, hspace=0.05
    )
    plots = figure.add_gridspec(
        2, 1, left=left, right=right, top=middle - 0.45 / height, bottom=foot_in / height, hspace=0.22
    )
    for line, camera in enumerate(cameras):
        cells = grid[line].subgridspec(1, len(rows), wspace=0.03)
        frames = reader.frames(index, camera.key, rows.tolist())
        for cell, row, frame in zip(cells, rows, frames, strict=True):  # type: ignore[call-overload]
            axes = figure.add_subplot(cell)
            axes.imshow(frame, interpolation="antialiased")
            _outline(axes, episode, reader.schema.mask_camera == camera.name, int(row))
            axes.set_xticks([])
            axes.set_yticks([])
            if line == 0:
                axes.set_title(f"{time_s[row]:.2f} s", fontsize=9, pad=3)
            if row == rows[0]:
                axes.set_ylabel(camera.name, fontsize=11)
    _heading(figure, reader, episode)
    _plots(figure, plots, episode, time_s)
    for axes in figure.axes:
        axes.tick_params(labelsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out


def _outline(axes: Axes, episode: EpisodeData, masked: bool, row: int) -> None:
    if not masked:
        return
    text = next(value[row] for key, value in episode.columns.items() if key.startswith("mask."))
    mask = rle.decode(text) if text else np.zeros((1, 1), bool)
    if mask.any():
        axes.contour(mask, levels=[0.5], colors=[_TARGET], linewidths=1.6)


def _heading(figure: Figure, reader: DatasetReader, episode: EpisodeData) -> None:
    info = episode.info
    word, colour = _LABEL[info.success]
    top = 1 - 0.24 / figure.get_figheight()
    figure.text(0.045, top, f"episode {episode.meta.index}: “{info.task}”", fontsize=14, weight="bold", va="center")
    figure.text(0.985, top, word, fontsize=14, weight="bold", color=colour, ha="right", va="center")
    parts = [reader.root.name, f"{episode.rows} rows at {reader.schema.rate_hz} Hz", info.robot_type]
    parts += [f"operator {info.operator}"] if info.operator else []
    parts += [f"seed {info.seed}"] if info.seed is not None else []
    parts += [info.note] if info.note else []
    if "timing.skew_ns" in episode.columns:
        skew_ms = episode.columns["timing.skew_ns"].astype(float) / 1e6
        latency_ms = episode.columns["timing.latency_ns"].astype(float) / 1e6
        parts.append(f"skew p95 {np.percentile(skew_ms, 95):.1f} ms, max {skew_ms.max():.1f} ms")
        parts.append(f"input to command p50 {np.median(latency_ms):.1f} ms")
    text = "   |   ".join(parts)
    figure.text(0.045, top - 0.26 / figure.get_figheight(), text, fontsize=10, color="#444444", va="center")


def _plots(figure: Figure, grid: Any, episode: EpisodeData, time_s: NDArray[np.float64]) -> None:
    """Two rows of plots: arm and hand; then forces, safety and skew where they were recorded."""
    upper = grid[0].subgridspec(1, 2, wspace=0.09)
    state, action = episode.columns[STATE], episode.columns[ACTION]
    arm = figure.add_subplot(upper[0])
    hand = figure.add_subplot(upper[1])
    _follow(arm, time_s, state[:, :7], action[:, :7], [f"joint {i + 1}" for i in range(7)], "arm, rad")
    names = ("thumb bend", "index", "middle", "ring", "little", "thumb rotation")
    _follow(hand, time_s, state[:, 7:], action[:, 7:], names[: state.shape[1] - 7], "hand opening (1 = open)")
    hand.set_ylim(-0.05, 1.2)
    if "sensor.wrench" not in episode.columns:
        note = figure.add_subplot(grid[1])
        note.axis("off")
        note.text(0.0, 0.9, "imported: no forces, safety flags or capture times were recorded", va="top", fontsize=11)
        return
    lower = grid[1].subgridspec(1, 3, wspace=0.14)
    force = figure.add_subplot(lower[0])
    force.plot(time_s, np.linalg.norm(episode.columns["sensor.wrench"][:, :3], axis=1), color="black", label="wrist")
    force.plot(time_s, episode.columns["sensor.hand_force"].max(1), color="#ef6c00", label="strongest finger")
    _finish(force, "force, N")
    _safety(figure.add_subplot(lower[1]), episode, time_s)
    skew = figure.add_subplot(lower[2])
    for key in sorted(key for key in episode.columns if key.startswith("timing.") and key.endswith("_ns")):
        if key.split(".")[1] not in ("row_ns", "skew_ns", "latency_ns", "sent_ns", "input_ns"):
            age_ms = (ns(episode, "timing.row_ns") - ns(episode, key)) / 1e6
            skew.plot(time_s, age_ms, linewidth=1, label=key.removeprefix("timing.").removesuffix("_ns"))
    skew.set_ylim(0, max(1.0, 1.15 * skew.get_ylim()[1]))
    _finish(skew, "age of each stream at its row, ms, over time, s")


def _follow(
    axes: Axes, time_s: NDArray[np.float64], state: Any, action: Any, names: list[str] | tuple[str, ...], title: str
) -> None:
    for joint, name in enumerate(names):
        (line,) = axes.plot(time_s, state[:, joint], linewidth=1.4, label=name)
        axes.plot(time_s, action[:, joint], linewidth=0.9, linestyle="--", color=line.get_color())
    _finish(axes, f"{title}: measured, dashed: commanded after safety")
    axes.legend(fontsize=7, ncols=len(names), loc="upper center", frameon=False, columnspacing=1.0, handlelength=1.2)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.14 * (high - low))


def _safety(axes: Axes, episode: EpisodeData, time_s: NDArray[np.float64]) -> None:
    """When safety changed a command, and by how much."""
    change = np.abs(episode.columns[REQUESTED].astype(float) - episode.columns[ACTION].astype(float)).max(1)
    axes.plot(time_s, change, color="#6a1b9a", label="largest change, rad or opening")
    flags = episode.columns[FLAGS].astype(np.int64)
    for flag in Safety:
        when = time_s[(flags & int(flag)) != 0]
        if flag and len(when):
            name = str(flag.name).lower().replace("_", " ")
            axes.plot(when, np.zeros_like(when), "|", markersize=9, label=f"{name}: {len(when)} rows")
    _finish(axes, "what safety changed in the requested command")


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9, loc="left", pad=4)
    axes.grid(alpha=0.25)
    axes.margins(x=0.01)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="upper left")


def save_rrd(reader: DatasetReader, index: int, out: Path) -> Path:
    """Write the episode for the Rerun viewer. Raises BadInput where there is no such episode."""
    import rerun as rr

    episode = reader.episode(index)
    stream = rr.RecordingStream("dexloop", recording_id=f"{reader.root.name}-{index}")
    out.parent.mkdir(parents=True, exist_ok=True)
    stream.save(str(out), default_blueprint=_blueprint(reader))
    _log(stream, reader, episode)
    stream.disconnect()
    if not out.exists() or not out.stat().st_size:
        raise BadInput(f"{out} could not be written: choose another folder with --out.")
    return out


def viewer_address(server: str) -> str:
    """Where a browser on this machine finds Rerun's web viewer, connected to ``server``."""
    return f"http://localhost:9090/?url={quote(server, safe='')}"


def serve_web(reader: DatasetReader, index: int) -> None:
    """Show the episode in a web browser until Ctrl-C. Prints where."""
    import time

    import rerun as rr

    stream = rr.RecordingStream("dexloop", recording_id=f"{reader.root.name}-{index}")
    address = stream.serve_grpc(default_blueprint=_blueprint(reader))
    _log(stream, reader, reader.episode(index))
    rr.serve_web_viewer(open_browser=True, connect_to=address)
    print(f"watch at {viewer_address(address)}; Ctrl-C ends it")
    while True:
        time.sleep(1.0)


def _log(stream: Any, reader: DatasetReader, episode: EpisodeData) -> None:
    """Cameras (as encoded), masks, depth, and every number, on the recorded time line."""
    import rerun as rr

    schema, columns = reader.schema, episode.columns
    time_s = row_seconds(episode, schema.rate_hz)
    times = rr.TimeColumn("time", duration=time_s)
    rows = rr.TimeColumn("row", sequence=np.arange(episode.rows))
    info = episode.info
    word = _LABEL[info.success][0]
    text = f"# {info.task}\n\n{word}; {info.operator} {info.note}\n\n{episode.rows} rows at {schema.rate_hz} Hz"
    stream.log("episode", rr.TextDocument(text, media_type="text/markdown"), static=True)
    for camera in schema.cameras:
        path, start_s = episode.meta.videos[camera.key]
        stream.log(f"cameras/{camera.name}/colour", rr.AssetVideo(path=path), static=True)
        at = np.rint((start_s + np.arange(episode.rows) / schema.rate_hz) * NS).astype(np.int64)
        stream.send_columns(
            f"cameras/{camera.name}/colour",
            indexes=[times, rows],
            columns=rr.VideoFrameReference.columns_nanos(at),
        )
        if camera.depth_unit_m:
            for row, counts in enumerate(reader.frames(episode.meta.index, camera.depth_key)):
                _at(stream, time_s, row)
                stream.log(f"cameras/{camera.name}/depth", rr.DepthImage(counts, meter=1 / camera.depth_unit_m))
    stream.log("/", rr.AnnotationContext([(1, "target", (255, 64, 26))]), static=True)
    for row, mask in enumerate(columns[f"mask.{schema.mask_camera}"]):
        if not mask:
            continue
        _at(stream, time_s, row)
        image = rr.SegmentationImage(rle.decode(mask).astype(np.uint8), opacity=0.4)
        stream.log(f"cameras/{schema.mask_camera}/target", image)
    for spec in schema.columns:
        if spec.dtype == "string":
            continue
        path_ = spec.key.replace(".", "/")
        if spec.names:
            stream.log(path_, rr.SeriesLines(names=list(spec.names)), static=True)
        values = columns[spec.key].astype(np.float64)
        if spec.key.startswith("timing.") and spec.key not in ("timing.skew_ns", "timing.latency_ns"):
            values = values - columns["timing.row_ns"].astype(np.float64)  # seen against the row: ns would drown it
        stream.send_columns(path_, indexes=[times, rows], columns=rr.Scalars.columns(scalars=values))


def _at(stream: Any, time_s: NDArray[np.float64], row: int) -> None:
    stream.set_time("time", duration=float(time_s[row]))
    stream.set_time("row", sequence=row)


def _blueprint(reader: DatasetReader) -> Any:
    """Cameras above, state against action, forces and times below."""
    import rerun.blueprint as rrb

    views = []
    for camera in reader.schema.cameras:
        views.append(rrb.Spatial2DView(origin=f"cameras/{camera.name}", name=camera.name))
    plots = [rrb.TimeSeriesView(origin="/", contents=["/observation/state", "/action"], name="measured and commanded")]
    if reader.schema.measured:
        plots.append(rrb.TimeSeriesView(origin="/sensor", name="forces"))
        plots.append(rrb.TimeSeriesView(origin="/timing", name="times against the row, ns"))
    document = rrb.TextDocumentView(origin="/episode", name="episode")
    return rrb.Blueprint(rrb.Vertical(rrb.Horizontal(*views, document), rrb.Horizontal(*plots)))
