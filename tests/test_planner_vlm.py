"""The vlm planner against a real HTTP server that answers as models do, and misbehaves as servers do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dexloop.deploy.planner.base import Box, FullLook, Look, PlannerError
from dexloop.deploy.planner.vlm import VlmConfig, VlmPlanner, connect
from dexloop.deploy.planner.vlm_answers import AnswerError, read_box, read_object, read_proposal, read_verdict
from dexloop.deploy.planner.vlm_boxes import (
    CONVENTIONS,
    Convention,
    family_of,
    fit_size,
    from_picture,
    iou,
    score,
    self_test_picture,
    to_picture,
)
from dexloop.deploy.planner.vlm_checks import check_box, table_depth
from dexloop.hardware.errors import BadInput
from dexloop.tests import vlm_server as srv
from hypothesis import given
from hypothesis import strategies as st

PIXELS, THOUSAND = Convention("pixels", "xyxy"), Convention("thousand", "xyxy")
RED_BOX: Box = (400.0, 210.0, 470.0, 300.0)
HELD = {"reason": "lifted", "held": True}


def make_look(width: int = 640, height: int = 480) -> FullLook:
    """A tilted table with a red block 6 cm high on it, and depth noise of 2 mm."""
    rng = np.random.default_rng(5)
    v, u = np.mgrid[0:height, 0:width]
    depth = 1.0 / (1.05 + 0.25 * v / height + 0.02 * u / width)
    head = np.full((height, width, 3), (170, 160, 150), np.uint8)
    x0, y0, x1, y1 = (round(value) for value in scaled(RED_BOX, width, height))
    head[y0:y1, x0:x1] = srv.COLOURS["red"]
    depth[y0:y1, x0:x1] -= 0.06
    depth += rng.normal(0, 0.002, depth.shape)
    depth[rng.random(depth.shape) < 0.05] = 0.0
    wrist = np.full((240, 320, 3), 90, np.uint8)
    near = np.ones((240, 320), np.float32)
    return FullLook(7, head, depth.astype(np.float32), np.ones(13), wrist=wrist, wrist_depth_m=near)


def scaled(box: Box, width: int, height: int) -> Box:
    return (box[0] * width / 640, box[1] * height / 480, box[2] * width / 640, box[3] * height / 480)


def config_for(server: srv.ChatServer, **changes: Any) -> VlmConfig:
    return replace(VlmConfig(base_url=server.url, timeout_s=60.0, total_s=120.0), **changes)


@pytest.fixture(scope="module")
def look() -> Look:
    return make_look()


@pytest.fixture
def server() -> Iterator[srv.ChatServer]:
    with srv.ChatServer(srv.SeeingModel(PIXELS)) as running:
        yield running


class Waits:
    """Waits of no length, written down."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def planner_for(server: srv.ChatServer, waits: Waits | None = None, **changes: Any) -> VlmPlanner:
    """As after its self-test; small pictures, to be quick."""
    quick = {"min_image_tokens": 192, "max_image_tokens": 300}
    planner = VlmPlanner(config_for(server, **quick | changes), waits or Waits())
    planner.convention = PIXELS
    return planner


def recovers(planner: VlmPlanner, look: Look) -> bool:
    """Whether it answers again; a loaded machine may need more than one short time-out."""
    for _ in range(10):
        try:
            return planner.verify("red", look, look).yes
        except PlannerError:
            continue
    return False


# -- boxes ------------------------------------------------------------------------------------------------------------

sizes = st.tuples(st.integers(16, 4000), st.integers(16, 4000))


@given(
    picture=sizes,
    sent=sizes,
    convention=st.sampled_from(CONVENTIONS),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_box_returns_from_any_size_and_convention(
    picture: tuple[int, int], sent: tuple[int, int], convention: Convention, corners: tuple[float, ...]
) -> None:
    xs, ys = sorted(corners[:2]), sorted(corners[2:])
    box = (xs[0] * picture[0], ys[0] * picture[1], xs[1] * picture[0], ys[1] * picture[1])
    back = to_picture(from_picture(box, convention, sent, picture), convention, sent, picture)
    np.testing.assert_allclose(back, box, atol=1e-6)


@given(size=st.tuples(st.integers(64, 3000), st.integers(64, 3000)), multiple=st.sampled_from((28, 32)))
def test_sent_sizes_are_whole_patches_in_the_budget(size: tuple[int, int], multiple: int) -> None:
    width, height = fit_size(size, multiple, 1024, 2048)
    assert width % multiple == height % multiple == 0
    assert 1024 <= width * height // multiple**2 <= 2048
    stretched = (width / height) / (size[0] / size[1])
    rows = min(width, height) // multiple
    assert abs(stretched - 1) <= 1.0 / rows, "out of shape by more than one patch of the shorter side"


def test_the_rigs_picture_keeps_its_shape() -> None:
    assert fit_size((640, 480), 28, 1024, 2048) == (1120, 840)
    assert fit_size((640, 480), 32, 1024, 2048) == (1280, 960)


@pytest.mark.parametrize(
    ("model", "name", "multiple", "scale"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL", 28, "pixels"),
        ("qwen2.5vl:7b", "Qwen2.5-VL", 28, "pixels"),
        ("qwen2_5_vl", "Qwen2.5-VL", 28, "pixels"),
        ("Qwen2-VL-2B-Instruct-AWQ", "Qwen2-VL", 28, "thousand"),
        ("qwen3-vl:8b", "Qwen3-VL", 32, "thousand"),
        ("Qwen/Qwen3-VL-235B-A22B-Thinking", "Qwen3-VL", 32, "thousand"),
        ("llava", "unknown", 28, None),
    ],
)
def test_families_by_name(model: str, name: str, multiple: int, scale: str | None) -> None:
    family = family_of(model)
    assert (family.name, family.multiple, family.scale) == (name, multiple, scale)


@pytest.mark.parametrize("multiple", [28, 32])
def test_no_convention_passes_for_another_in_the_self_test(multiple: int) -> None:
    test = self_test_picture(multiple, 1024, 2048)
    assert test.size[0] > 2 * test.size[1]
    for true in CONVENTIONS:
        answers = {colour: from_picture(box, true, test.size, test.size) for colour, box in test.boxes.items()}
        means = score(test, answers)
        assert means.pop(true) > 0.999
        assert max(means.values()) < 0.2


# -- the self-test -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("true", CONVENTIONS, ids=str)
@pytest.mark.parametrize("model", ["Qwen2.5-VL-7B-Instruct", "qwen3-vl:8b", "somebody-elses"])
def test_connect_finds_the_convention_and_boxes_come_back_in_the_pictures_pixels(
    true: Convention, model: str, look: Look
) -> None:
    with srv.ChatServer(srv.SeeingModel(true)) as server:
        planner = connect(config_for(server, model=model))
        assert planner.convention == true
        found = planner.ground("grasp the red block", look).box
        assert found is not None
        assert iou(found, RED_BOX) > 0.95
        sent = srv.pictures(server.script.requests[-1])[0]
        assert sent.shape[0] % planner.family.multiple == sent.shape[1] % planner.family.multiple == 0
        planner.close()


def test_a_picture_of_another_shape_is_mapped_back(server: srv.ChatServer) -> None:
    wide = make_look(1280, 720)
    found = planner_for(server).ground("grasp the red block", wide).box
    assert found is not None
    assert iou(found, scaled(RED_BOX, 1280, 720)) > 0.95


def test_a_stated_convention_that_the_model_does_not_keep_is_refused(server: srv.ChatServer) -> None:
    with pytest.raises(PlannerError, match=r"xyxy in thousandths \(0-1000\) 0\.\d\d") as refusal:
        connect(config_for(server, box_convention="thousand"))
    assert "pixels" not in str(refusal.value).split("expected")[0]
    assert "--vlm.box-convention" in str(refusal.value)


def test_a_model_that_does_not_ground_is_refused_with_every_hypothesis() -> None:
    with srv.ChatServer(srv.SeeingModel(PIXELS, blind_to=("red", "blue"))) as server:
        with pytest.raises(PlannerError) as refusal:
            connect(config_for(server))
        for convention in CONVENTIONS:
            assert str(convention) in str(refusal.value)
        assert "no box for red, blue" in str(refusal.value)
        connect(config_for(server, min_self_test_iou=0.4)).close()


def test_a_server_that_shrinks_pictures_is_found_out() -> None:
    with (
        srv.ChatServer(srv.SeeingModel(PIXELS, resize=0.5)) as server,
        pytest.raises(PlannerError, match=r"0\.50 times as wide and 0\.50 times as high.*max_pixels"),
    ):
        connect(config_for(server))


def test_nothing_is_answered_before_the_self_test(server: srv.ChatServer, look: Look) -> None:
    planner = VlmPlanner(config_for(server))
    for request in (
        lambda: planner.ground("the red block", look),
        lambda: planner.verify("the red block", look, look),
        lambda: planner.propose("clear the table", look, look),
    ):
        with pytest.raises(PlannerError, match="self-test"):
            request()
    assert server.script.requests == []


# -- the four requests -------------------------------------------------------------------------------------------------


def test_the_four_requests(server: srv.ChatServer, look: Look) -> None:
    planner = connect(config_for(server))
    server.script.requests.clear()
    assert planner.propose("clear the table", look, look).instruction == "grasp the red block"
    assert planner.ground("grasp the red block", look).label == "red block"
    assert planner.verify("grasp the red block", look, look).yes is True
    assert planner.complete("clear the table", look, look).yes is False
    seen = [len(srv.pictures(request)) for request in server.script.requests]
    assert seen == [2, 1, 3, 2]
    for request in server.script.requests:
        wanted = request["response_format"]
        assert wanted["type"] == "json_schema"
        assert wanted["json_schema"]["schema"]["additionalProperties"] is False
        assert request["max_tokens"] == 512
    verdict = server.script.requests[2]["response_format"]["json_schema"]["schema"]["properties"]["held"]
    assert verdict == {"type": "boolean"}
    box = server.script.requests[1]["response_format"]["json_schema"]["schema"]["properties"]["bbox_2d"]
    assert box["maxItems"] == 4


def test_proposals_of_each_kind(server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server)
    blank = {"reason": "r", "instruction": "", "question": ""}
    server.then(
        srv.says(blank | {"decision": "ask", "question": "Which cup?"}), srv.says(blank | {"decision": "nothing_left"})
    )
    assert planner.propose("the cup", look, look).question == "Which cup?"
    assert planner.propose("the cup", look, look).nothing_left
    assert '"the cup"' in srv.texts(server.script.requests[0])


def test_what_failed_is_not_tried_a_fourth_time(server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server)
    other = {"reason": "", "decision": "grasp", "instruction": "grasp the blue cup", "question": ""}
    same = other | {"instruction": "Grasp the red block."}
    server.then(srv.says(same), srv.says(other))
    assert planner.propose("clear", look, look, ("grasp the red block",)).instruction == "grasp the blue cup"
    assert "already failed" in srv.texts(server.script.requests[1])
    server.then(srv.says(same), srv.says(same))
    assert "grasp the red block" in planner.propose("clear", look, look, ("grasp the red block",)).question


def test_not_visible_is_an_answer(server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server)
    grounding = planner.ground("grasp the yellow duck", look)
    assert grounding.box is None
    assert grounding.reason == "I looked"
    assert len(server.script.requests) == 1


def test_prompts_are_checked(server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server)
    with pytest.raises(BadInput, match="empty"):
        planner.propose("  ", look, look)
    with pytest.raises(BadInput, match="at most 2000"):
        planner.ground("x" * 2001, look)
    with pytest.raises(BadInput, match="one depth pixel for each"):
        planner.ground("red", replace(look, head_depth_m=look.head_depth_m[::2]))


# -- box checks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ((100.0, 100.0, 900.0, 200.0), "leaves the picture"),
        ((100.0, 100.0, 102.0, 300.0), "next to nothing"),
        ((0.0, 0.0, 640.0, 480.0), "covers 100.00% of the picture"),
        ((60.0, 60.0, 120.0, 130.0), "nothing stands above the table"),
        ((float("nan"), 0.0, 100.0, 100.0), "not finite"),
    ],
)
def test_impossible_boxes(box: Box, fault: str, look: Look) -> None:
    checked = check_box(box, look.head_depth_m, VlmConfig())
    assert checked.box is None
    assert fault in checked.fault


def test_a_box_that_leaves_by_a_hair_is_clipped(look: Look) -> None:
    depth = look.head_depth_m.copy()
    depth[400:, 560:] -= 0.05
    assert check_box((560.0, 400.0, 646.0, 484.0), depth, VlmConfig()).box == (560.0, 400.0, 640.0, 480.0)


def test_a_box_without_depth_is_refused(look: Look) -> None:
    depth = look.head_depth_m.copy()
    depth[200:310, 390:480] = 0
    assert "depth camera sees nothing" in check_box(RED_BOX, depth, VlmConfig()).fault


@given(a=st.floats(-3e-4, 3e-4), b=st.floats(-3e-4, 3e-4), c=st.floats(0.8, 1.6), seed=st.integers(0, 99))
def test_the_table_is_found_in_any_tilt(a: float, b: float, c: float, seed: int) -> None:
    v, u = np.mgrid[0:120, 0:160]
    true = 1.0 / (a * u + b * v + c)
    depth = true + np.random.default_rng(seed).normal(0, 0.001, true.shape)
    depth[20:60, 30:90] -= 0.1
    plane = table_depth(depth.astype(np.float32))
    assert plane is not None
    assert np.abs(plane(u, v) - true).max() < 0.004


def test_a_bad_box_is_asked_for_once_more(server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server)
    bare_table = {"reason": "", "visible": True, "label": "block", "bbox_2d": [50, 50, 90, 100]}
    server.then(srv.says(bare_table))
    found = planner.ground("the red block", look).box
    assert found is not None
    assert iou(found, RED_BOX) > 0.95
    assert "nothing stands above the table" in srv.texts(server.script.requests[1])
    server.then(srv.says(bare_table), srv.says(bare_table))
    grounding = planner.ground("the red block", look)
    assert grounding.box is None
    assert "nothing stands above the table" in grounding.reason


# -- servers that misbehave --------------------------------------------------------------------------------------------


def test_429_waits_as_long_as_it_is_told(server: srv.ChatServer, look: Look) -> None:
    waits = Waits()
    planner = planner_for(server, waits)
    server.then(srv.refuses(429, "slow down", Retry_After="2"), srv.refuses(429, Retry_After="0"))
    assert planner.verify("red", look, look).yes
    assert waits.seconds == [2.0, 0.0]


def test_retry_after_is_capped_and_may_be_a_date(server: srv.ChatServer, look: Look) -> None:
    waits = Waits()
    planner = planner_for(server, waits, backoff_max_s=3.0)
    server.then(
        srv.refuses(429, Retry_After="86400"),
        srv.refuses(503, Retry_After="Fri, 01 Jan 2100 00:00:00 GMT"),
        srv.refuses(429, Retry_After="soon"),
    )
    assert planner.verify("red", look, look).yes
    assert waits.seconds == [3.0, 3.0, 2.0]  # the third is its own: 0.5 s doubled twice


def test_500s_are_tried_again_and_given_up(server: srv.ChatServer, look: Look) -> None:
    waits = Waits()
    planner = planner_for(server, waits, retries=2)
    server.then(srv.refuses(500), srv.refuses(502))
    assert planner.verify("red", look, look).yes
    server.then(*[srv.refuses(500, "out of memory")] * 3)
    with pytest.raises(PlannerError, match=r"3 tries.*500: .*out of memory") as error:
        planner.verify("red", look, look)
    assert server.url in str(error.value)
    assert waits.seconds == [0.5, 1.0, 0.5, 1.0]


def test_a_late_server_is_given_up_in_time(server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server, timeout_s=0.4, total_s=5.0, retries=1)
    server.then(srv.late(20), srv.late(20))
    began = time.monotonic()
    with pytest.raises(PlannerError, match=r"not answered after 0\.\d s.*--vlm\.timeout-s"):
        planner.verify("red", look, look)
    assert time.monotonic() - began < 4.0
    assert recovers(planner, look), "the planner goes on with a new connection"


@pytest.mark.parametrize("endless", [srv.trickles_headers, srv.trickles_body, srv.pours], ids=lambda f: f.__name__)
def test_a_server_that_never_ends_is_given_up_in_time(endless: srv.Behaviour, look: Look) -> None:
    with srv.ChatServer(srv.SeeingModel(PIXELS)) as server:
        planner = planner_for(server, timeout_s=0.4, total_s=5.0, retries=1)
        server.then(endless, endless)
        began = time.monotonic()
        with pytest.raises(PlannerError, match="2 tries"):
            planner.verify("red", look, look)
        assert time.monotonic() - began < 4.0
        assert recovers(planner, look)
        patience = time.monotonic() + 3.0
        while _request_threads() and time.monotonic() < patience:
            time.sleep(0.02)
        assert not _request_threads(), "a request that was given up still runs"


def _request_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "vlm request"]


def test_the_total_holds_retries_and_waits(server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server, timeout_s=0.3, total_s=0.8, retries=50, backoff_s=0.01)
    server.then(*[srv.late(20)] * 60)
    began = time.monotonic()
    with pytest.raises(PlannerError):
        planner.verify("red", look, look)
    assert time.monotonic() - began < 4.0


@pytest.mark.parametrize("broken", [srv.hangs_up, srv.half_a_body], ids=lambda f: f.__name__)
def test_a_lost_connection_is_made_anew(broken: srv.Behaviour, server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server)
    server.then(broken)
    assert planner.verify("red", look, look).yes
    assert len(server.script.requests) == 2


def test_a_server_that_is_gone_mid_task(server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server, retries=1)
    assert planner.verify("red", look, look).yes
    server.stop()  # hangs up, and nobody takes a new connection
    with pytest.raises(PlannerError, match=r"2 tries.*connection failed.*refused"):
        planner.verify("red", look, look)


def test_a_server_that_was_never_there() -> None:
    with srv.ChatServer(srv.SeeingModel(PIXELS)) as server:
        config = config_for(server, retries=2)
    waits = Waits()
    with pytest.raises(PlannerError, match=r"connection failed.*--vlm\.base-url"):
        connect(config, waits)
    assert len(waits.seconds) == 2


@pytest.mark.parametrize(
    ("code", "said", "advice"),
    [
        (401, "bad key", "--vlm.api-key-env"),
        (404, "no such model", "/v1/models"),
        (400, "too many images", "--limit-mm-per-prompt"),
    ],
)
def test_refusals_are_not_tried_again(code: int, said: str, advice: str, server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server)
    server.then(srv.refuses(code, said))
    with pytest.raises(PlannerError, match=said) as error:
        planner.verify("red", look, look)
    assert advice in str(error.value)
    assert len(server.script.requests) == 1


def test_a_server_without_schemas_is_asked_for_less(server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server)
    server.then(srv.refuses(400, "response_format json_schema is not supported"), srv.refuses(400, "json_object: no"))
    assert planner.verify("red", look, look).yes
    assert planner.verify("red", look, look).yes
    formats = [request.get("response_format", {}).get("type") for request in server.script.requests]
    assert formats == ["json_schema", "json_object", None, None]


@pytest.mark.parametrize("body", [b"<html>proxy</html>", b"[]", b'{"choices": []}', b'{"error": "overloaded"}'])
def test_what_is_no_completion(body: bytes, server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server, retries=1)
    server.then(*[lambda handler, _: handler.send(200, body)] * 2)
    with pytest.raises(PlannerError, match="OpenAI-compatible"):
        planner.verify("red", look, look)


def test_close_ends_a_request_from_another_thread(server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server)
    server.then(srv.late(20))
    caught: list[Exception] = []

    def ask() -> None:
        try:
            planner.verify("red", look, look)
        except PlannerError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not server.script.requests:
        time.sleep(0.01)
    planner.close()
    thread.join(2.0)
    assert not thread.is_alive()
    assert "closed" in str(caught[0])


# -- answers that cannot be used ---------------------------------------------------------------------------------------


def test_a_cut_answer_is_an_error_that_the_model_is_told(server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server)
    loop = '{"reason": "' + "it is held " * 300
    server.then(srv.says(loop, "length"))
    assert planner.verify("red", look, look).yes
    assert "cut off at 512 tokens" in srv.texts(server.script.requests[1])
    # What is quoted back is short, or a loop would feed on itself.
    assert len(srv.texts(server.script.requests[1])) < len(srv.texts(server.script.requests[0])) + 1500
    server.then(srv.says(loop, "length"), srv.says(loop, "length"))
    with pytest.raises(PlannerError, match=r"cut off at 512 tokens.*--vlm\.max-tokens"):
        planner.verify("red", look, look)


def test_a_whole_verdict_that_was_cut_is_still_an_error(server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server)
    server.then(*[srv.says(HELD, "length")] * 2)
    with pytest.raises(PlannerError):
        planner.verify("red", look, look)


@pytest.mark.parametrize("said", ["not true", "true", "yes", 1, None, "false"])
def test_a_verdict_is_a_boolean_and_nothing_else(said: Any, server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server)
    server.then(srv.says({"reason": "", "held": said}), srv.says({"reason": "", "held": False}))
    assert planner.verify("red", look, look).yes is False
    assert '"held" is' in srv.texts(server.script.requests[1])
    server.then(*[srv.says({"reason": "", "held": said})] * 2)
    with pytest.raises(PlannerError, match="JSON boolean"):
        planner.verify("red", look, look)


def test_an_invalid_answer_is_asked_for_once_more_with_the_error(server: srv.ChatServer, look: Look) -> None:
    planner = planner_for(server)
    server.then(srv.says({"verdict": True}))
    assert planner.verify("red", look, look).yes
    roles = [message["role"] for message in server.script.requests[1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert '"held" is missing (the answer has "verdict")' in server.script.requests[1]["messages"][-1]["content"]
    server.then(srv.says("I think so."), srv.says(""))
    with pytest.raises(PlannerError, match="twice"):
        planner.verify("red", look, look)
    assert len(server.script.requests) == 4


@pytest.mark.parametrize(
    "text",
    [
        '{"held": false}',
        '```json\n{"held": false}\n```',
        'Here it is:\n```\n{"held": false}\n```\nAnything else?',
        '{"held": false} I hope that helps.',
        "{'held': False, 'reason': 'the cup\\'s gone'}",
        "{'held': false, 'n': [-1, null]} there",
        '[{"held": false}]',
        '<think>{"held": true}?</think>{"held": false}',
    ],
)
def test_wrappings_are_forgiven(text: str) -> None:
    assert read_verdict(text, "held").yes is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "true",
        "held: true",
        "not true",
        '{"held": true} no, {"held": false}',
        '{"held": true, "held": false}',
        "{'held': true, 'held': false}",
        '{"held": tru',
        '{"held": "true"}',
        '{"held": maybe}',
        '{"held": NaN}',
        "{'held': __import__('os')}",
        '```{"held": true}``` ```{"held": false}```',
        '[{"held": true}, {"held": true}]',
        "[" * 5000 + '{"held": true}',
        '{"held":' * 5000,
        '{"held": ' + "9" * 5000 + "}",
        "\x00{",
    ],
)
def test_nothing_is_guessed(text: str) -> None:
    with pytest.raises(AnswerError):
        read_verdict(text, "held")


@given(st.text(max_size=200))
def test_any_text_is_an_answer_or_an_answer_error(text: str) -> None:
    for read in (read_object, read_proposal, read_box, lambda said: read_verdict(said, "held")):
        try:
            read(text)
        except AnswerError:
            continue


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(visible=json_values, box=json_values, label=json_values)
def test_any_json_is_a_box_or_an_answer_error(visible: Any, box: Any, label: Any) -> None:
    try:
        answer = read_box(json.dumps({"visible": visible, "bbox_2d": box, "label": label}))
    except AnswerError:
        return
    assert isinstance(visible, bool)
    assert (answer.numbers is not None) == visible


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({"visible": False, "bbox_2d": [1, 2, 3, 4]}, "is false but"),
        ({"visible": True, "bbox_2d": []}, "holds no box"),
        ({"visible": True, "bbox_2d": [1, 2, 3]}, "four numbers"),
        ({"visible": True, "bbox_2d": [1, 2, 3, "4"]}, "four numbers"),
        ({"visible": True, "bbox_2d": [1, 2, 3, 1e9]}, "beyond any picture"),
        ({"bbox_2d": [1, 2, 3, 4]}, '"visible" is missing'),
    ],
)
def test_contradictions_about_boxes(answer: dict[str, Any], fault: str) -> None:
    with pytest.raises(AnswerError, match=fault):
        read_box(json.dumps(answer))


# -- log, key, config --------------------------------------------------------------------------------------------------


def test_everything_is_logged_but_the_key(
    server: srv.ChatServer, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-very-secret-4711"
    monkeypatch.setenv("MY_KEY", key)
    planner = connect(config_for(server, log=tmp_path / "log", api_key_env="MY_KEY", retries=0))
    assert server.script.headers[-1]["authorization"] == f"Bearer {key}"
    server.then(srv.says({"verdict": True}))
    planner.verify("grasp the red block", look, look)
    server.then(srv.refuses(401, f"the key {key} is not ours"))
    with pytest.raises(PlannerError) as error:
        planner.complete("clear the table", look, look)
    assert key not in str(error.value)
    for path in (tmp_path / "log").rglob("*"):
        assert path.is_dir() or key.encode() not in path.read_bytes()

    lines = [json.loads(line) for line in (tmp_path / "log" / "requests.jsonl").read_text().splitlines()]
    tries = [line for line in lines if "try" in line]
    assert [line["kind"] for line in tries] == ["self-test", "verify", "verify", "complete"]
    assert "401" in tries[-1]["error"]
    assert tries[1]["answer"] == '{"verdict": true}'
    assert tries[1]["usage"]["completion_tokens"] == 30
    parts = tries[1]["turns"][1]["parts"]
    assert "grasp the red block" in parts[-1]
    kept = [part for part in parts if isinstance(part, dict)]
    assert [part["size"] for part in kept] == [[1120, 840]] * 3
    assert kept[0]["picture"] == kept[1]["picture"], "the same look twice is kept once"
    assert (tmp_path / "log" / kept[0]["picture"]).read_bytes().startswith(b"\xff\xd8")
    assert [line["iou"]["xyxy in pixels"] > 0.9 for line in lines if line.get("event") == "self-test"] == [True]
    assert not list((tmp_path / "log").rglob("*.part"))


def test_requests_from_two_threads_keep_apart(server: srv.ChatServer, look: Look, tmp_path: Path) -> None:
    planner = planner_for(server, log=tmp_path)
    results: dict[str, Any] = {}
    calls = {
        "verify": lambda: planner.verify("red", look, look).yes,
        "complete": lambda: planner.complete("all", look, look).yes,
        "ground": lambda: planner.ground("the red block", look).label,
    }
    threads = [
        threading.Thread(target=lambda name=name, call=call: results.update({name: call()}))
        for name, call in calls.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == {"verify": True, "complete": False, "ground": "red block"}
    for line in (tmp_path / "requests.jsonl").read_text().splitlines():
        json.loads(line)


def test_a_key_or_folder_that_is_not_there(server: srv.ChatServer, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="export NO_SUCH_KEY"):
        connect(config_for(server, api_key_env="NO_SUCH_KEY"))
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"vlm\.log"):
        connect(config_for(server, log=tmp_path / "file"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base_url": "127.0.0.1:8000"}, "base-url"),
        ({"base_url": "http://me:secret@host/v1"}, "user or password"),
        ({"model": " "}, "model is empty"),
        ({"timeout_s": 0.0}, "timeout-s"),
        ({"timeout_s": float("nan")}, "timeout-s"),
        ({"timeout_s": 100.0, "total_s": 10.0}, "total-s"),
        ({"retries": -1}, "retries"),
        ({"max_tokens": 3}, "max-tokens"),
        ({"min_image_tokens": 3000}, "max-image-tokens"),
        ({"min_image_tokens": 2000}, "1.2 times"),
        ({"min_self_test_iou": 1.5}, "min-self-test-iou"),
        ({"min_box_share": 0.6}, "expected less"),
        ({"min_above_table_m": -1.0}, "min-above-table-m"),
    ],
)
def test_configs_that_cannot_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said) as error:
        replace(VlmConfig(), **change)
    assert "secret" not in str(error.value)


# -- the wire, against the real architectures --------------------------------------------------------------------------


class TinyQwen:
    """Qwen2.5-VL or Qwen3-VL as transformers has it, with random weights and a vocabulary of bytes, behind the server.

    What it says is noise. What it shows is that our pictures pass its image processor unresized and become as many
    visual tokens as were asked for.
    """

    IMAGE, START, END = 256, 257, 258

    def __init__(self, name: str) -> None:
        transformers = pytest.importorskip("transformers", reason="the wire test needs transformers")
        import torch

        torch.manual_seed(0)
        self.patch = {"Qwen2.5-VL": 14, "Qwen3-VL": 16}[name]
        text = {
            "vocab_size": 260, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "bos_token_id": 259,
            "eos_token_id": 259,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
        }  # fmt: skip
        vision = {
            "depth": 2, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32,
            "patch_size": self.patch, "fullatt_block_indexes": [1], "deepstack_visual_indexes": [1],
        }  # fmt: skip
        ids = {"image_token_id": self.IMAGE, "vision_start_token_id": self.START, "vision_end_token_id": self.END}
        kind = {"Qwen2.5-VL": "Qwen2_5_VL", "Qwen3-VL": "Qwen3VL"}[name]
        config = getattr(transformers, kind + "Config")(text_config=text, vision_config=vision, **ids)
        self.model = getattr(transformers, kind + "ForConditionalGeneration")(config).eval()
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

        limits = {"shortest_edge": 4 * (2 * self.patch) ** 2, "longest_edge": 2048 * (2 * self.patch) ** 2}
        self.processor = Qwen2VLImageProcessor(patch_size=self.patch, size=limits)
        self.grids: list[list[int]] = []

    def __call__(self, handler: srv.Handler, request: srv.Request) -> None:
        import torch

        seen = self.processor(images=srv.pictures(request), return_tensors="pt")
        self.grids = seen["image_grid_thw"].tolist()
        tokens: list[int] = []
        for grid in self.grids:
            tokens += [self.START, *[self.IMAGE] * (int(np.prod(grid)) // 4), self.END]
        tokens += list(srv.texts(request).encode())
        ids = torch.tensor([tokens])
        types = (ids == self.IMAGE).long()
        with torch.no_grad():
            out = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=types, max_new_tokens=8,
                do_sample=False, **seen,
            )  # fmt: skip
        said = bytes(int(token) % 256 for token in out[0, len(tokens) :]).decode("latin-1")
        handler.send(200, srv.completion(said, "length"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Qwen2.5-VL", "Qwen3-VL"])
def test_pictures_reach_the_real_architectures_unresized(name: str, look: Look, tmp_path: Path) -> None:
    model = TinyQwen(name)
    with srv.ChatServer(model) as server:
        planner = VlmPlanner(config_for(server, model=name + "-tiny", timeout_s=200.0, total_s=400.0, log=tmp_path))
        with pytest.raises(PlannerError, match="cut off"):  # random weights know no squares
            planner.self_test()
        test = self_test_picture(planner.family.multiple, 1024, 2048)
        assert model.grids == [[1, test.size[1] // model.patch, test.size[0] // model.patch]]
        planner.convention = PIXELS
        with pytest.raises(PlannerError, match="cut off"):
            planner.ground("the red block", look)
        (picture,) = srv.pictures(server.script.requests[-1])
        assert model.grids == [[1, picture.shape[0] // model.patch, picture.shape[1] // model.patch]]
        assert 1024 <= np.prod(model.grids) // 4 <= 2048
