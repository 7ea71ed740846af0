"""The planner that needs no weights: geometry from depth, colour from the picture, and a small grammar.

It sees what a D435 gives, the rig's calibration and the arm's own joints. What it cannot tell apart it asks about, and
what it cannot read it refuses: both beat a confident wrong object.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ...hardware.description import RigDescription
from ...hardware.errors import BadInput
from ...hardware.rig import DEXGRASPVLA_RIG
from .attributes import Thing, balanced, describe
from .base import Grounding, Look, Proposal, Verdict
from .cuts import SegmentConfig
from .grammar import Query, parse
from .grip import GripConfig, GripSense
from .ranking import Answer, Ranking, RankingConfig
from .segments import Cluster, clusters, to_lab
from .table import Array, Table, TableConfig, TableFinder


@dataclass(frozen=True)
class OfflineConfig:
    """The offline planner's settings."""

    table: TableConfig = field(default_factory=TableConfig)
    segments: SegmentConfig = field(default_factory=SegmentConfig)
    ranking: RankingConfig = field(default_factory=RankingConfig)
    grip: GripConfig = field(default_factory=GripConfig)
    reach_m: tuple[float, float] = (0.30, 0.78)
    """Nearest and farthest that the arm takes things well, from its shoulder."""
    clear_m: float = 0.03
    """Free space around an object that the fingers need."""
    gone_share: float = 0.6
    """An object is gone when this part of where it stood is now bare, as far as it can be seen."""
    floats_m: float = 0.2
    """What begins higher than this over the table does not stand on it."""
    same_m: float = 0.04
    """An object within this distance of where one stood is that one."""

    def __post_init__(self) -> None:
        if not 0.0 < self.reach_m[0] < self.reach_m[1]:
            raise BadInput(f"OfflineConfig.reach_m is {self.reach_m}: expected 0 < nearest < farthest, m")
        if not 0.0 < self.gone_share <= 1.0 or self.clear_m < 0.0 or self.same_m <= 0.0:
            raise BadInput(
                f"OfflineConfig.gone_share is {self.gone_share}, clear_m {self.clear_m}, same_m {self.same_m}: "
                "expected a share in (0, 1], 0 or more, and more than 0"
            )


@dataclass(frozen=True)
class Scene:
    """One look, understood: the table, what stands on it, and what hangs in the hand."""

    look: Look
    table: Table
    things: tuple[Thing, ...]
    held: tuple[Thing, ...]  # raised off the table beside the palm


class OfflinePlanner:
    """``Planner`` without a model. Looks that were understood lately are kept, so repeated questions cost nothing."""

    name = "offline"

    def __init__(self, rig: RigDescription = DEXGRASPVLA_RIG, config: OfflineConfig | None = None) -> None:
        self.rig, self.config = rig, config or OfflineConfig()
        self._finder = TableFinder(rig, self.config.table)
        self._grip = GripSense(rig, self._finder, self.config.grip)
        self._seen: list[tuple[Look, Scene]] = []

    # -- the four requests --------------------------------------------------------------------------------------

    def propose(self, prompt: str, first: Look, now: Look, failed: tuple[str, ...] = ()) -> Proposal:
        """See ``Planner``. Raises BadInput for a prompt that the grammar does not know."""
        query = parse(prompt)
        scene = self.see(now)
        ranking = Ranking(scene.things, self.config.ranking)
        answer = ranking.answer(query)
        if answer.rivals:
            return Proposal(question=self._question(scene.things, answer))
        given_up = self._given_up(ranking, failed)
        left = [k for k in answer.chosen if k not in given_up]
        if not query.every and answer.chosen and not self._still_to_do(query, first, scene, answer):
            return Proposal(nothing_left=True, reason="what was asked for is no longer where it stood")
        if not left:
            reason = answer.reason or "every attempt at what is left failed"
            return Proposal(nothing_left=True, reason=reason)
        best = max(left, key=lambda k: self._worth(scene.things[k]))
        return Proposal(instruction=self._say(ranking, best, query), reason=self._why(scene.things[best], len(left)))

    def ground(self, instruction: str, now: Look) -> Grounding:
        """See ``Planner``. No box where nothing fits, and none where two things fit alike (the reason says which)."""
        query = parse(instruction)
        things = self.see(now).things
        answer = Ranking(things, self.config.ranking).answer(replace(query, every=False, excluded=None))
        if answer.rivals:
            return Grounding(None, reason="ambiguous: " + self._question(things, answer))
        if not answer.chosen:
            return Grounding(None, reason=answer.reason)
        thing = things[answer.chosen[0]]
        return Grounding(thing.cluster.box, _name(thing), round(answer.confidence, 3), answer.reason)

    def verify(self, instruction: str, before: Look, now: Look) -> Verdict:
        """See ``Planner``. Held = gone from where it stood, and something is in the hand."""
        query = parse(instruction)
        old = self.see(before)
        answer = Ranking(old.things, self.config.ranking).answer(replace(query, every=False, excluded=None))
        if not answer.chosen:
            which = "more than one thing" if answer.rivals else "nothing"
            return Verdict(False, f"{which} on the table before the attempt fits {instruction!r}: {answer.reason}")
        thing, scene = old.things[answer.chosen[0]], self.see(now)
        grip = self._grip.sense(now, scene.table)
        bare = self.bare_share(thing, scene)
        raised = grip.target_raised_m
        if raised is not None and raised > self.config.grip.raised_m and grip.something:
            return Verdict(True, f"the target rose by {raised * 100:.0f} cm and {grip.reason}")
        if bare is not None and bare < self.config.gone_share:
            return Verdict(False, f"it still stands where it stood ({bare:.0%} of the place is bare)")
        moved = self._found_again(thing, old, scene)
        if moved is not None:
            x, y, _ = moved.centroid_m
            return Verdict(False, f"it was pushed to x {x:.2f}, y {y:.2f} m, not lifted")
        if not grip.something:
            return Verdict(False, f"it is gone from where it stood, but {grip.reason}")
        if bare is None and grip.points < self.config.grip.min_points:
            return Verdict(False, "the robot hides the place where it stood, and nothing is seen in the hand")
        return Verdict(True, f"it is gone from where it stood and {grip.reason}")

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
        if (answer.chosen or answer.rivals) and self._still_to_do(query, first, scene, answer):
            return Verdict(False, "it stands on the table")
        return Verdict(True, answer.reason or "it is gone from where it stood")

    # -- seeing -------------------------------------------------------------------------------------------------

    def see(self, look: Look) -> Scene:
        """What is on the table in ``look``. Raises PlannerError where no table can be found."""
        for seen, scene in self._seen:
            if seen is look:
                return scene
        table = self._finder.find(look)
        picture = balanced(look.head, table.robot)
        found = clusters(table, picture, self.config.segments)
        hand = self._grip.centre(look)
        # What floats without a hand beside it is a bracket of the rig that reaches over the table.
        found = tuple(c for c in found if _lowest_m(c) < self.config.floats_m or self._hangs(c, hand))
        things = describe(found, to_lab(picture))
        held = tuple(thing for thing in things if self._hangs(thing.cluster, hand))
        scene = Scene(look, table, tuple(thing for thing in things if not any(thing is other for other in held)), held)
        self._seen = [(look, scene), *self._seen[:3]]
        return scene

    def bare_share(self, thing: Thing, scene: Scene) -> float | None:
        """Part of where ``thing`` stood that is now at the table's height; None where too little of it is in view."""
        mask = thing.cluster.mask
        if mask.shape != scene.table.valid.shape:
            raise BadInput(f"looks of {mask.shape} and {scene.table.valid.shape} pixels: expected one camera's")
        # What rises above the old top is the robot or what it holds, in the way.
        height = scene.table.height_m[mask & scene.table.on_table & scene.table.valid]
        height = height[height < thing.height_m + 0.03]
        if len(height) < max(20, 0.15 * mask.sum()):
            return None
        bare = height < max(0.35 * thing.height_m, 1.5 * self.config.segments.grow_m)
        return float(bare.mean())

    def _hangs(self, cluster: Cluster, hand: Array) -> bool:
        return _lowest_m(cluster) > 0.05 and float(np.linalg.norm(cluster.points.mean(0) - hand)) < 0.14

    def _found_again(self, thing: Thing, old: Scene, scene: Scene) -> Thing | None:
        """A thing like it that stands where nothing stood before."""
        for new in scene.things:
            places = [
                float(np.linalg.norm(o.centroid_m[:2] - new.centroid_m[:2])) for o in old.things if o is not thing
            ]
            if min(places, default=1.0) > self.config.same_m and _alike(thing, new):
                return new
        return None

    # -- choosing -----------------------------------------------------------------------------------------------

    def _still_to_do(self, query: Query, first: Look, scene: Scene, answer: Answer) -> bool:
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

    def _given_up(self, ranking: Ranking, failed: tuple[str, ...]) -> set[int]:
        out: set[int] = set()
        for instruction in failed:
            answer = ranking.answer(replace(parse(instruction), every=False, excluded=None))
            out |= set(answer.chosen)
        return out

    def _worth(self, thing: Thing) -> tuple[bool, bool, float]:
        """Reachable before not, free before blocked, then right, centre, left (DexGraspVLA's own preference)."""
        mount = self.rig.arms[0]
        origin = mount.world_T_base @ np.array([0.0, 0.0, mount.arm.links[0].origin_m[2], 1.0])
        distance = float(np.linalg.norm(thing.centroid_m - origin[:3]))
        near, far = self.config.reach_m
        return near <= distance <= far, thing.blocked_m >= self.config.clear_m, -round(float(thing.centroid_m[1]), 2)

    def _why(self, thing: Thing, count: int) -> str:
        reachable, free, _ = self._worth(thing)
        how = "free to grasp" if free else f"a neighbour stands {thing.blocked_m * 100:.0f} cm away"
        return f"{'within' if reachable else 'at the edge of'} reach, {how}; {count} to go"

    # -- saying -------------------------------------------------------------------------------------------------

    def _say(self, ranking: Ranking, k: int, query: Query) -> str:
        """The shortest instruction that this planner itself understands as thing ``k`` and nothing else."""
        for text in self._descriptions(ranking.things[k], query):
            answer = ranking.answer(parse(text))
            if answer.chosen == (k,) and answer.confidence >= 0.3:
                return text
        x, y, _ = ranking.things[k].centroid_m
        return f"grasp the {_name(ranking.things[k])} at x {x:.2f} y {y:.2f} m"

    def _descriptions(self, thing: Thing, query: Query) -> list[str]:
        noun = query.nouns[0] if len(query.nouns) == 1 else "object"
        colour = "" if noun == thing.colour else thing.colour
        names = [f"{colour} {noun}".strip()]
        if thing.shape_word:
            names.append(f"{thing.shape_word} {colour} {noun}".replace("  ", " "))
        places = ["", "on the right", "on the left", "in the middle", "nearest to the robot", "farthest from the robot"]
        sizes = ["biggest", "smallest", "tallest", "shortest"]
        out = [f"grasp the {name} {place}".strip() for place in places for name in names]
        return out + [f"grasp the {size} {names[0]}" for size in sizes]

    def _question(self, things: tuple[Thing, ...], answer: Answer) -> str:
        """Names the rivals and where they are."""
        rivals = [things[k] for k in answer.rivals]
        colours = {thing.colour for thing in rivals}
        what = f"{colours.pop()} objects" if len(colours) == 1 else "objects that fit"
        where = _whereabouts(rivals)
        listed = [
            (f"one {place}" if what != "objects that fit" else f"the {_name(thing)} {place}")
            for thing, place in zip(rivals, where, strict=True)
        ]
        return f"There are {_number(len(rivals))} {what}: {', '.join(listed[:-1])} and {listed[-1]}. Which one?"


def _lowest_m(cluster: Cluster) -> float:
    return float(np.percentile(cluster.height_m, 3))


def _name(thing: Thing) -> str:
    word = thing.shape_word
    return f"{word} {thing.colour} object".strip() if word else f"{thing.colour} object"


def _number(count: int) -> str:
    return {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}.get(count, str(count))


def _whereabouts(things: list[Thing]) -> list[str]:
    """A place for each: along the wider spread of the two axes."""
    xy = np.array([thing.centroid_m[:2] for thing in things])
    spread = np.ptp(xy, axis=0)
    axis = 1 if spread[1] >= 0.7 * spread[0] else 0
    words = ("on the right", "in the middle", "on the left") if axis else ("in front", "in the middle", "at the back")
    order = np.argsort(np.argsort(xy[:, axis]))
    last = len(things) - 1
    return [words[0] if rank == 0 else words[2] if rank == last else words[1] for rank in order]


def _alike(a: Thing, b: Thing) -> bool:
    """Whether two things may be one: of a colour and of a size, as far as another view shows."""
    shared = sum(min(a.colours[name], b.colours[name]) for name in a.colours)
    ratio = np.array(a.size_m) / np.maximum(b.size_m, 1e-3)
    return shared > 0.6 and bool((ratio[:2] > 0.6).all() and (ratio[:2] < 1.7).all())
