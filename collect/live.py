"""What the operator sees while recording: the cameras' pictures and the session's lines, in a browser.

A view of its own on the streams that are recorded: it can be slow or closed without the recording noticing more than
the time that a picture's compression takes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from ..datasets.view import viewer_address
from ..hardware.clock import NS
from ..hardware.interfaces import Camera, Unsubscribe
from ..hardware.values import Frame

JPEG_QUALITY = 75


class LiveView:
    """Serves to a browser on this machine; ``address`` is where. Close it when the cameras close."""

    def __init__(self, open_browser: bool = True) -> None:
        import rerun as rr

        self._stream = rr.RecordingStream("dexloop_live")
        server = self._stream.serve_grpc(server_memory_limit="256MB", default_blueprint=_blueprint())
        rr.serve_web_viewer(open_browser=open_browser, connect_to=server)
        self.address = viewer_address(server)
        self._unsubscribe: list[Unsubscribe] = []

    def follow(self, cameras: Iterable[Camera]) -> None:
        """Show these cameras from now on."""
        for camera in cameras:
            self._unsubscribe.append(camera.subscribe(functools.partial(self._show, camera.name)))

    def tell(self, line: str) -> None:
        """Show one line."""
        import rerun as rr

        self._stream.log("session", rr.TextLog(line))

    def _show(self, name: str, frame: Frame) -> None:
        import rerun as rr

        self._stream.set_time("time", duration=frame.captured_ns / NS)
        self._stream.log(f"cameras/{name}", rr.Image(frame.rgb).compress(jpeg_quality=JPEG_QUALITY))

    def close(self) -> None:
        """Let the cameras go. Safe to call twice."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []
        self._stream.disconnect()


def _blueprint() -> object:
    import rerun.blueprint as rrb

    views = rrb.Horizontal(
        rrb.Spatial2DView(origin="cameras/head", name="head"), rrb.Spatial2DView(origin="cameras/wrist", name="wrist")
    )
    log = rrb.TextLogView(origin="session", name="session")
    return rrb.Blueprint(rrb.Vertical(views, log, row_shares=[3, 1]), collapse_panels=True)
