"""``cli.py train attention``: where a controller looks in a recorded episode, as a picture or a video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..hardware.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..datasets.reader import DatasetReader
    from .attention_picture import Look, Picture
    from .controller.policy import ControllerPolicy
    from .views import Observation


@dataclass(frozen=True)
class Attention:
    """Draw where a controller looks in an episode: attention over head and wrist view, averaged over all action tokens,
    heads, blocks and sampling steps."""

    checkpoint: Path
    """A policy folder, a run (its best policy), or DexGraspVLA's .ckpt."""
    dataset: str = "grasp"
    """Name under recordings/, or a path."""
    episode: str = "0"
    """Which one: episode_42, or 42."""
    row: int | None = None
    """One moment, as a PNG. Not given: the whole episode, as an MP4."""
    every: int = 1
    """Of a video: only every so many-th row, for controllers that take their time."""
    block: int | None = None
    """Only this block of the transformer, counted from 0. Not given: all."""
    out: Path | None = None
    """Folder for the file. Not given: outputs/<data set>."""
    device: str = "cpu"
    """Where the controller computes."""

    def run(self) -> int:
        from ..datasets.home import home, parse_episode, resolve_existing
        from ..datasets.reader import DatasetReader
        from .controller.policy import ControllerPolicy
        from .data.chunks import check_robot
        from .prepare import load_init

        if not self.checkpoint.exists():
            raise BadInput(f"--checkpoint {self.checkpoint} does not exist: give a policy folder or a run.")
        reader = DatasetReader(resolve_existing(self.dataset))
        index = parse_episode(self.episode, len(reader))
        rows = self._rows(reader.meta(index).rows)
        controller = load_init(self.checkpoint)
        check_robot(reader, controller.config.action, controller.config.robot_type)
        policy = ControllerPolicy(controller, device=self.device)
        folder = self.out or home() / "outputs" / reader.root.name
        folder.mkdir(parents=True, exist_ok=True)
        if self.row is not None:
            path = folder / f"attention_{index}_row_{self.row}.png"
            summary = save_picture(policy, reader, index, self.row, path, self.block)
        else:
            path = folder / f"attention_{index}.mp4"
            summary = save_video(policy, reader, index, rows, path, self.block)
        print(f"{summary}\n{path}")
        return 0

    def _rows(self, count: int) -> range:
        if self.every < 1:
            raise BadInput(f"--every is {self.every}: expected 1 or more.")
        if self.row is None:
            return range(0, count, self.every)
        if not 0 <= self.row < count:
            raise BadInput(f"row {self.row} does not exist: the episode has 0..{count - 1}.")
        return range(self.row, self.row + 1)


def looks(
    policy: ControllerPolicy, reader: DatasetReader, episode: int, rows: range, block: int | None = None
) -> Iterator[tuple[Look, Observation]]:
    """What the controller attends to at chosen rows of an episode. Every row before is shown to it too, so that
    windows follow the target as they do live."""
    from .attention_maps import attend
    from .attention_picture import Look

    suffix = "" if block is None else f", block {block}"
    for row, moment in enumerate(moments(policy, reader, episode, range(rows[-1] + 1))):
        if row == 0:
            policy.start(moment)
        batch = policy.batch(moment)
        if row not in rows:
            continue
        found = attend(policy.controller, batch, policy.noise(), block=block)
        corners = {group: batch.get(f"{grid.view.name}.origin") for group, grid in found.grids.items()}
        look = Look(
            row,
            {group: attention[0].cpu().numpy() for group, attention in found.maps().items()},
            {group: (int(corner[0, 0]), int(corner[0, 1])) for group, corner in corners.items() if corner is not None},
            {group: float(share) for group, share in found.shares().items()},
            {group: (float(a), float(b)) for group, (a, b) in found.on_target(batch).items()},
            f"{reader.root.name}, episode {episode}, {row / reader.schema.rate_hz:.2f} s (row {row}){suffix}",
        )
        yield look, moment


def moments(policy: ControllerPolicy, reader: DatasetReader, episode: int, rows: range) -> Iterator[Observation]:
    """Chosen rows of an episode: all that the controller looks at, and the picture that the target is outlined in."""
    from itertools import islice

    from .data.moments import observations
    from .views import View

    encoder, schema = policy.controller.encoder, reader.schema
    outlined = next(camera for camera in schema.cameras if camera.name == schema.mask_camera)
    picture = View("outlined", outlined.name, outlined.width, outlined.height, mask=True)
    views = dict.fromkeys((*encoder.views, *encoder.reference_views, picture))
    yield from islice(observations(reader, episode, views), rows.start, rows.stop, rows.step)


def save_picture(
    policy: ControllerPolicy, reader: DatasetReader, episode: int, row: int, path: Path, block: int | None = None
) -> str:
    """A PNG of one row; what it shows, in words."""
    from PIL import Image

    from .attention_maps import grids
    from .attention_picture import draw

    [(look, moment)] = looks(policy, reader, episode, range(row, row + 1), block)
    over = grids(policy.controller.encoder)
    Image.fromarray(draw(look, moment, over, brightest([look]), reader.schema.mask_camera)).save(path)
    return described([look])


def save_video(
    policy: ControllerPolicy, reader: DatasetReader, episode: int, rows: range, path: Path, block: int | None = None
) -> str:
    """An MP4 of an episode in real time, its colours on one scale; what it shows, in words."""
    from rich.progress import track

    from .attention_maps import grids
    from .attention_picture import draw

    shown = [look for look, _ in track(looks(policy, reader, episode, rows, block), "attention", len(rows))]
    most, over = brightest(shown), grids(policy.controller.encoder)
    seen = zip(shown, moments(policy, reader, episode, rows), strict=True)  # decoded again: all of them fill the memory
    pictures = (draw(look, moment, over, most, reader.schema.mask_camera) for look, moment in seen)
    write_video(pictures, reader.schema.rate_hz / rows.step, path)
    return described(shown)


def brightest(shown: list[Look]) -> float:
    """The density that the colours end at: few places are above it."""
    import numpy as np

    from .attention_picture import density

    values = [density(attention).ravel() for look in shown for attention in look.maps.values()]
    return max(float(np.quantile(np.concatenate([[0.0], *values]), 0.995)), 3.0)  # an even picture is not to glow


def described(shown: list[Look]) -> str:
    """Mean shares of attention over the looks."""

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    words = ", ".join(f"{group} {mean([look.shares[group] for look in shown]):.1%}" for group in shown[0].shares)
    lines = [f"attention over {len(shown)} moment(s): {words}"]
    for group in shown[0].on_target:
        attention = mean([look.on_target[group][0] for look in shown])
        area = mean([look.on_target[group][1] for look in shown])
        lines.append(f"{group}: {attention:.1%} of its attention is on the target, which covers {area:.1%} of it")
    return "\n".join(lines)


def write_video(pictures: Iterable[Picture], rate_hz: float, path: Path) -> None:
    """RGB pictures of one size -> H.264. Written beside and renamed."""
    from fractions import Fraction

    import av

    temporary = path.with_name(f".{path.name}.tmp")
    with av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", Fraction(rate_hz).limit_denominator(1000), {"crf": "20"})
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    temporary.replace(path)
