"""The planner that needs no weights: geometry from depth, colour from the picture, and a small grammar.

It sees what a D435 gives, the rig's calibration and the arm's own joints. What it cannot tell apart it asks about, and
what it cannot read it refuses: both beat a confident wrong object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ...hardware.description import RigDescription
from ...hardware.errors import BadInput
from ...hardware.rig import DEXGRASPVLA_RIG
from . import saying
from .attributes import Thing, describe
from .base import FullLook, Grounding, Look, Proposal, Verdict
from .cuts import SegmentConfig
from .grammar import Query, parse
from .grip import Grip, GripConfig, GripSense, WristView
from .light import Light
from .ranking import Answer, Ranking, RankingConfig
from .reach import Reach, ReachConfig
from .segments import Cluster, clusters, to_lab
from .table import Array, Table, TableConfig, TableFinder

_WRIST_POINTS = 60  # of the wrist camera's over a place, so that it tells something of it
_STANDS_M = 0.05  # what begins lower over the table stands on it
_REMEMBERED = 64  # instructions whose things are kept


@dataclass(frozen=True)
class OfflineConfig:
    """The offline planner's settings."""

    table: TableConfig = field(default_factory=TableConfig)
    segments: SegmentConfig = field(default_factory=SegmentConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    grip: GripConfig = field(default_factory=GripConfig)
    reach: ReachConfig = field(default_factory=ReachConfig)
    gone_share: float = 0.6
    """An object is gone when this part of where it stood is now bare, as far as it can be seen."""
    same_height_m: float = 0.02
    """A pixel whose height over the table changed by less shows what it showed before."""
    like_share: float = 0.15
    """What is in the hand has at least this much of the object's colours."""
    other_share: float = 0.2
    """It is another object that is gone when it has so much more of that one's colours."""
    floats_m: float = 0.2
    """What begins higher than this over the table does not stand on it."""
    same_m: float = 0.04
    """An object within this distance of where one stood is that one."""
    strayed_m: float = 0.25
    """So far from where it was named an object like it may be the one that was meant: attempts push things about."""

    def __post_init__(self) -> None:
        if not 0.0 < self.gone_share <= 1.0:
            raise BadInput(f"OfflineConfig.gone_share is {self.gone_share}: expected a share in (0, 1]")
        for name in ("like_share", "other_share"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise BadInput(f"OfflineConfig.{name} is {getattr(self, name)}: expected a share in [0, 1)")
        for name in ("same_height_m", "floats_m", "same_m", "strayed_m"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise BadInput(f"OfflineConfig.{name} is {getattr(self, name)}: expected more than 0 and at most 1 m")


@dataclass(frozen=True)
class Scene:
    """One look, understood: the table, what stands on it, and what hangs in the hand."""

    look: Look
    table: Table
    light: Light
    things: tuple[Thing, ...]
    held: tuple[Thing, ...]  # raised off the table beside the palm


@dataclass(frozen=True)
class _Meant:
    """What an instruction meant when it was last given, and what else stood there then."""

    thing: Thing
    others: tuple[Thing, ...]


class OfflinePlanner:
    """``Planner`` without a model. Looks that were understood lately are kept, so repeated questions cost nothing."""

    name = "offline"

    def __init__(self, rig: RigDescription = DEXGRASPVLA_RIG, config: OfflineConfig | None = None) -> None:
        self.rig, self.config = rig, config or OfflineConfig()
        self._finder = TableFinder(rig, self.config.table)
        self._grip = GripSense(rig, self._finder, self.config.grip)
        self._reach = Reach(rig, self.config.reach)
        self._seen: list[tuple[Look, Scene]] = []
        self._named: dict[str, _Meant] = {}  # by instruction

    # -- the four requests --------------------------------------------------------------------------------------

    def propose(self, prompt: str, first: Look, now: Look, failed: tuple[str, ...] = ()) -> Proposal:
        """See ``Planner``. Raises BadInput for a prompt that the grammar does not know."""
        query = parse(prompt)
        scene = self.see(now)
        ranking = Ranking(scene.things, self.config.ranking)
        answer = ranking.answer(query)
        given_up = self._given_up(scene, failed)
        if answer.rivals:
            left = [k for k in answer.rivals if k not in given_up]
            if len(left) > 1:
                return Proposal(question=saying.question(scene.things, answer))
        else:
            left = [k for k in answer.chosen if k not in given_up]
            if not query.every and answer.chosen and not self._still_to_do(query, first, scene):
                return Proposal(nothing_left=True, reason="what was asked for is no longer where it stood")
        if not left:
            return Proposal(nothing_left=True, reason=self._why_nothing(scene, answer, given_up))
        best, why = self._order(scene.things, left)
        instruction = saying.instruction(ranking, best, query)
        self._remember(instruction, scene, best)
        return Proposal(instruction=instruction, reason=why)

    @staticmethod
    def _why_nothing(scene: Scene, answer: Answer, given_up: set[int]) -> str:
        """One sentence."""
        tried = [k for k in answer.chosen + answer.rivals if k in given_up]
        if not tried:
            return answer.reason
        names = " and ".join(f"the {saying.name(scene.things[k])}" for k in tried)
        return f"every attempt at {names} failed, and nothing else that was asked for is left"

    def ground(self, instruction: str, now: Look) -> Grounding:
        """See ``Planner``. No box where nothing fits, and none where two things fit alike (the reason says which),
        unless it is known which one the instruction meant before. What stood beside that one then, and still stands
        there, is not it, however well the words fit now that it is gone."""
        scene = self.see(now)
        things, answer = scene.things, self._meaning(scene, instruction)
        meant = self._named.get(instruction)
        others = self._others(scene, meant)
        index, why = next((k for k in answer.chosen[:1] if k not in others), None), answer.reason
        if index is None and meant is not None:
            among = [k for k in answer.rivals or range(len(things)) if k not in others]
            index = self._nearest(scene, meant.thing, among, self.config.strayed_m)
            why = "it is the one that was meant before"
        if index is not None:
            self._remember(instruction, scene, index)
            thing = things[index]
            return Grounding(thing.cluster.box, saying.name(thing), round(answer.confidence, 3), why)
        if answer.rivals:
            return Grounding(None, reason="ambiguous: " + saying.question(things, answer))
        if answer.chosen:
            name = saying.name(things[answer.chosen[0]])
            return Grounding(None, reason=f"it is not to be seen any more: the {name} stood there before, beside it")
        return Grounding(None, reason=answer.reason)

    def verify(self, instruction: str, before: Look, now: FullLook) -> Verdict:
        """See ``Planner``. Held = gone from where it stood, nowhere else on the table, something is in the hand, and
        that looks like it and not like another thing that is gone."""
        thing, fault = self._target(instruction, before)
        if thing is None:
            return Verdict(False, fault)
        old, scene = self.see(before), self.see(now)
        wrist = self._grip.wrist_view(now, scene.table)
        bare = self.bare_share(thing, scene, wrist)
        if bare is not None and bare < self.config.gone_share:
            return Verdict(False, f"it still stands where it stood ({bare:.0%} of the place is bare)")
        moved = self._found_again(thing, old, scene)
        if moved is not None:
            x, y, _ = moved.centroid_m
            return Verdict(False, f"it was pushed to x {x:.2f}, y {y:.2f} m, not lifted")
        grip = self._grip.sense(now, scene.table, scene.light, wrist)
        if not grip.something:
            return Verdict(False, f"it is gone from where it stood, but {grip.reason}")
        other = self._held_instead(grip, thing, old, scene, wrist)
        if other:
            return Verdict(False, other)
        if bare is None and grip.points < 2 * self.config.grip.min_points:
            return Verdict(False, "the robot hides the place where it stood, and little is seen in the hand")
        return Verdict(True, f"it is gone from where it stood and {grip.reason}")

    def _held_instead(self, grip: Grip, thing: Thing, old: Scene, scene: Scene, wrist: WristView) -> str:
        """What speaks for another thing in the hand than ``thing``, "" for nothing."""
        fit = _shared(grip.colours, thing.colours)
        for other in old.things:
            better = _shared(grip.colours, other.colours) - fit
            if other is thing or better < self.config.other_share:
                continue
            bare = self.bare_share(other, scene, wrist)
            if bare is None or bare >= self.config.gone_share:
                return f"what is in the hand looks like the {saying.name(other)}"
        if fit < self.config.like_share:
            return f"what is in the hand does not look like it (only {fit:.0%} of its colours)"
        return ""

    def complete(self, prompt: str, first: Look, now: Look) -> Verdict:
        """See ``Planner``. Done when nothing that was asked for is left on the table or hangs over it."""
        query = parse(prompt)
        scene = self.see(now)
        answer = Ranking(scene.things, self.config.ranking).answer(query)
        if scene.held:
            return Verdict(False, "something is still in the hand over the table")
        if query.every:
            left = answer.chosen or answer.rivals
            return Verdict(not left, f"{len(left)} left on the table" if left else answer.reason or "none is left")
        if (answer.chosen or answer.rivals) and self._still_to_do(query, first, scene):
            return Verdict(False, "it stands on the table")
        return Verdict(True, answer.reason or "it is gone from where it stood")

    # -- seeing -------------------------------------------------------------------------------------------------

    def see(self, look: Look) -> Scene:
        """What is on the table in ``look``. Raises PlannerError where no table can be found."""
        for seen, scene in self._seen:
            if seen is look:
                return scene
        table = self._finder.find(look)
        light = Light.of(look.head, table)
        lab = to_lab(light.balanced(look.head, table))
        found = clusters(table, lab, self.config.segments)
        hand = self._grip.centre(look)
        # What floats without a hand beside it is a bracket of the rig that reaches over the table.
        found = tuple(c for c in found if _lowest_m(c) < self.config.floats_m or self._hangs(c, hand))
        things = describe(found, lab, light)
        held = tuple(thing for thing in things if self._hangs(thing.cluster, hand))
        standing = tuple(thing for thing in things if not self._hangs(thing.cluster, hand))
        scene = Scene(look, table, light, standing, held)
        self._seen = [(look, scene), *self._seen[:3]]
        return scene

    def bare_share(self, thing: Thing, scene: Scene, wrist: WristView | None = None) -> float | None:
        """Part of where ``thing`` stood that is now at the table's height, as head and ``wrist`` camera see it: the
        lesser of the two. None where both see too little of it."""
        cluster, table = thing.cluster, scene.table
        if cluster.mask.shape != table.valid.shape:
            raise BadInput(f"looks of {cluster.mask.shape} and {table.valid.shape} pixels: expected one camera's")
        limit = max(0.35 * thing.height_m, 1.5 * self.config.segments.grow_m)
        was, now = cluster.height_m, table.height_m.ravel()[cluster.pixels]
        # A pixel tells something where it shows the table now, or what it showed before. Robot and what it holds are
        # in the way: a tall thing that is raised hides its place with its own foot.
        telling = (table.on_table & table.valid).ravel()[cluster.pixels]
        telling &= (now < limit) | (np.abs(now - was) < self.config.same_height_m)
        seen = [now[telling].astype(np.float64)]
        least = [max(20.0, 0.15 * cluster.area_px)]
        if wrist is not None:
            height = wrist.height_m[_over(wrist.points, thing)]
            seen.append(height[height < thing.height_m + 0.03])
            least.append(max(_WRIST_POINTS, 0.5 * len(height)))  # mostly higher: it looks at what hangs in the hand
        shares = [float((height < limit).mean()) for height, few in zip(seen, least, strict=True) if len(height) >= few]
        return min(shares, default=None)

    def _hangs(self, cluster: Cluster, hand: Array) -> bool:
        return _lowest_m(cluster) > _STANDS_M and float(np.linalg.norm(cluster.points.mean(0) - hand)) < 0.14

    def _found_again(self, thing: Thing, old: Scene, scene: Scene) -> Thing | None:
        """A thing like it that stands where nothing stood before."""
        for new in scene.things:
            places = [_away_m(other, new) for other in old.things if other is not thing]
            stands = _lowest_m(new.cluster) < _STANDS_M  # and is no part of the arm, say
            if stands and min(places, default=1.0) > self.config.same_m and _alike(thing, new):
                return new
        return None

    # -- choosing -----------------------------------------------------------------------------------------------

    def _target(self, instruction: str, before: Look) -> tuple[Thing | None, str]:
        """What the attempt was at: the thing under the tracked mask, else what the instruction means; or why none."""
        scene = self.see(before)
        if before.target is not None:
            shared = [float((thing.cluster.mask & before.target).sum()) for thing in scene.things]
            if shared and max(shared) > 0.3 * float(before.target.sum()):
                return scene.things[int(np.argmax(shared))], ""
        answer = self._meaning(scene, instruction)
        if answer.chosen:
            return scene.things[answer.chosen[0]], ""
        which = "more than one thing" if answer.rivals else "nothing"
        return None, f"{which} on the table before the attempt fits {instruction!r}"

    def _meaning(self, scene: Scene, instruction: str) -> Answer:
        """What an instruction for one thing means."""
        query = parse(instruction)
        return Ranking(scene.things, self.config.ranking).answer(replace(query, every=False, excluded=None))

    def _still_to_do(self, query: Query, first: Look, scene: Scene) -> bool:
        """Whether the one thing that was asked for at the start still stands there, or moved without being taken."""
        if first is scene.look:
            return True
        start = self.see(first)
        meant = Ranking(start.things, self.config.ranking).answer(query)
        if not meant.chosen:
            return True  # it came to the table later, or the user was asked which
        thing = start.things[meant.chosen[0]]
        bare = self.bare_share(thing, scene)
        if bare is None or bare < self.config.gone_share:
            return True
        return self._found_again(thing, start, scene) is not None

    def _given_up(self, scene: Scene, failed: tuple[str, ...]) -> set[int]:
        """Indices of things that every attempt failed at: where they were when they were named, or near it, since
        attempts push things about; of an instruction that this planner never saw, what it means now."""
        out: set[int] = set()
        for instruction in failed:
            meant = self._named.get(instruction)
            if meant is None:
                out |= set(self._meaning(scene, instruction).chosen)
                continue
            others = self._others(scene, meant)
            left = [k for k in range(len(scene.things)) if k not in out and k not in others]
            nearest = self._nearest(scene, meant.thing, left, self.config.strayed_m)
            if nearest is not None:
                out.add(nearest)
        return out

    def _others(self, scene: Scene, meant: _Meant | None) -> set[int]:
        """Indices of what stood beside the thing that was meant and still stands where it stood."""
        if meant is None:
            return set()
        out = set()
        for k, thing in enumerate(scene.things):
            away = [_away_m(other, thing) for other in meant.others if _alike(other, thing)]
            own = _away_m(meant.thing, thing) if _alike(meant.thing, thing) else np.inf
            if min(away, default=np.inf) < min(own, self.config.same_m):
                out.add(k)
        return out

    @staticmethod
    def _nearest(scene: Scene, thing: Thing, among: Sequence[int], within_m: float) -> int | None:
        """Which of ``among`` is like ``thing`` and nearest to where it was; None where none is so near."""
        away = {k: _away_m(scene.things[k], thing) for k in among if _alike(thing, scene.things[k])}
        nearest = min(away, key=lambda k: away[k], default=None)
        return nearest if nearest is not None and away[nearest] < within_m else None

    def _order(self, things: tuple[Thing, ...], left: list[int]) -> tuple[int, str]:
        """The first of ``left``, and why: reachable before not, free before blocked, then right, centre, left
        (DexGraspVLA's own preference)."""
        access = {k: self._reach.access(things[k], things) for k in left}
        best = max(left, key=lambda k: (access[k].reachable, access[k].free, -round(float(things[k].centroid_m[1]), 2)))
        chosen = access[best]
        reach = "within reach" if chosen.reachable else "hard to reach"
        room = "free to grasp" if chosen.free else f"blocked by a neighbour {things[best].blocked_m * 100:.0f} cm away"
        return best, f"it is {reach} and {room}; {len(left)} to go"

    def _remember(self, instruction: str, scene: Scene, index: int) -> None:
        self._named.pop(instruction, None)
        others = tuple(thing for k, thing in enumerate(scene.things) if k != index)
        self._named[instruction] = _Meant(scene.things[index], others)
        while len(self._named) > _REMEMBERED:
            self._named.pop(next(iter(self._named)))


def _lowest_m(cluster: Cluster) -> float:
    return float(np.percentile(cluster.height_m, 3))


def _away_m(a: Thing, b: Thing) -> float:
    """Between their middles, seen from above."""
    return float(np.linalg.norm(a.centroid_m[:2] - b.centroid_m[:2]))


def _over(points: Array, thing: Thing) -> NDArray[np.bool_]:
    """(N,): which of (N, 3) m lie above or below a thing's footprint, by squares of 1 cm."""
    columns = 10_000
    own, others = (
        np.floor(xy / 0.01).astype(int) @ (columns, 1) for xy in (thing.cluster.points[:, :2], points[:, :2])
    )
    return np.isin(others, own)


def _shared(a: dict[str, float], b: dict[str, float]) -> float:
    """0..1: what two things' colours have in common."""
    return sum(min(a[name], b[name]) for name in a)


def _alike(a: Thing, b: Thing) -> bool:
    """Whether two things may be one: of a colour and of a size, as far as another view shows."""
    ratio = np.array(a.size_m) / np.maximum(b.size_m, 1e-3)
    return _shared(a.colours, b.colours) > 0.6 and bool((ratio[:2] > 0.6).all() and (ratio[:2] < 1.7).all())
