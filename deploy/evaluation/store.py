"""A folder that an evaluation fills: one file a scene, and a manifest of the settings. Interrupted, it goes on.

manifest.json       what the results depend on; another setting needs another folder
scenes/<id>.json    one result each, written beside and renamed: there whole, or not at all
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ...hardware.errors import BadInput
from .executor import Executor, Failure
from .suites import Row
from .values import Record, Trial, TrialResult, TrialSettings

FORMAT = 2
MANIFEST, SCENES = "manifest.json", "scenes"
IGNORED = ("policy", "videos", "vlm")  # where things lie; what the policy is says its digest
PACKAGE = Path(__file__).parents[2]
CODE, CODE_SUFFIXES = ("deploy", "hardware", "train"), (".py", ".json", ".safetensors")
IGNORED_VLM = ("base_url", "api_key_env", "log")


class ResultFolder[Result: Record]:
    """Made for one manifest, and results of one ``kind``. Raises BadInput where the folder holds results of another
    manifest, naming what differs."""

    def __init__(
        self,
        path: Path,
        manifest: dict[str, Any],
        kind: type[Result] = TrialResult,  # type: ignore[assignment]
    ) -> None:
        self.path, self.kind = path, kind
        self.manifest = json.loads(json.dumps(manifest))  # as it will be read again
        found = path / MANIFEST
        if found.exists():
            self._compare(found)
        elif path.exists() and any(path.iterdir()):
            raise BadInput(f"{path} is not empty and holds no evaluation: choose another --out.")
        (path / SCENES).mkdir(parents=True, exist_ok=True)
        if not found.exists():
            write_json(found, self.manifest)

    def _compare(self, found: Path) -> None:
        try:
            before = json.loads(found.read_text())
        except (OSError, ValueError) as error:
            raise BadInput(f"{found} is not readable JSON ({error}): choose another --out.") from error
        names = sorted(set(before) | set(self.manifest))
        off = [name for name in names if before.get(name) != self.manifest.get(name)]
        if off:
            told = "; ".join(f"{name} was {before.get(name)!r}, is now {self.manifest.get(name)!r}" for name in off)
            raise BadInput(
                f"{found.parent} holds an evaluation with other settings ({told[:600]}): use those to go on with it, "
                "or choose another --out."
            )

    def result(self, row: Row) -> Result | None:
        """Of a scene that was done; None where it was not."""
        path = self._path(row)
        if not path.exists():
            return None
        try:
            return self.kind.from_json(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise BadInput(f"{path} is damaged ({error}): delete it, that scene is then tried again.") from error

    def keep(self, row: Row, result: Result) -> None:
        write_json(self._path(row), result.to_json())

    def _path(self, row: Row) -> Path:
        return self.path / SCENES / f"{row.id}.json"


def run_rows[Result: Record](
    folder: ResultFolder[Result],
    rows: Sequence[Row],
    settings: TrialSettings,
    executor: Executor,
    function: Callable[[Trial], Result],
    done: Callable[[Row, Result | Failure], None] = lambda row, result: None,
) -> tuple[list[Result], dict[str, str]]:
    """Try what is not yet done. Returns the results of all ``rows`` in their order, and by id why some have none.
    ``done`` is told of each as it comes, also of those that were there."""
    results = {row.id: result for row in rows if (result := folder.result(row)) is not None}
    for row in rows:
        if row.id in results:
            done(row, results[row.id])
    left = [row for row in rows if row.id not in results]
    failures: dict[str, str] = {}
    for index, outcome in executor.run(function, [Trial(settings, row) for row in left]):
        row = left[index]
        if isinstance(outcome, Failure):
            failures[row.id] = outcome.message
        else:
            folder.keep(row, outcome)
            results[row.id] = outcome
        done(row, outcome)
    return [results[row.id] for row in rows if row.id in results], failures


def manifest_of(suite: str, digest: str, rows: Sequence[Row], settings: TrialSettings) -> dict[str, Any]:
    """What results depend on: suite, scenes, settings, the policy's own bytes, the model behind the planner, DexLoop's
    version and code. Not the workers, nor where policy and model are."""
    ids = hashlib.sha256("\n".join(row.id for row in rows).encode()).hexdigest()[:16]
    plain = {key: value for key, value in asdict(settings).items() if key not in IGNORED}
    if settings.vlm is not None:
        plain["vlm"] = {key: value for key, value in asdict(settings.vlm).items() if key not in IGNORED_VLM}
    try:
        number = version("dexloop")
    except PackageNotFoundError:
        number = "unknown"
    return {
        "format": FORMAT,
        "suite": suite,
        "suite_digest": digest,
        "scenes": len(rows),
        "scenes_digest": ids,
        "policy_digest": digest_of(Path(settings.policy)) if settings.policy else "",
        "dexloop": number,
        "code_digest": digest_of_code(PACKAGE),
    } | plain


def digest_of_code(package: Path) -> str:
    """Of every file that a trial runs by or reads: code, and what planner and suites were fitted and written to."""
    out = hashlib.sha256()
    for path in sorted(
        path for folder in CODE for path in (package / folder).rglob("*") if path.suffix in CODE_SUFFIXES
    ):
        out.update(f"{path.relative_to(package).as_posix()}\n".encode())
        out.update(hashlib.sha256(path.read_bytes()).digest())
    return out.hexdigest()[:16]


def digest_of(folder: Path) -> str:
    """Of a policy's config and weights. Raises BadInput where there are none."""
    out = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        try:
            with (folder / name).open("rb") as file:
                out.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise BadInput(
                f"{folder} holds no controller ({error.strerror}: {name}): expected config.json and model.safetensors, "
                "as `train controller` makes them; name the folder with --policy."
            ) from error
    return out.hexdigest()[:16]


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Beside, then renamed: a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    temporary.replace(path)
