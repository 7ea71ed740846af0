"""DexLoop's command line: parse, construct, call. Each command's work is in the module that its config names.

Only light modules are imported here, so that ``--help`` answers at once; torch, lerobot and mujoco are imported by
the command that needs them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _check_install() -> str | None:
    """What is wrong with the installation, in one line; None when ``dexloop`` is this folder."""
    here = Path(__file__).resolve().parent
    try:
        import dexloop
    except ImportError:
        return "dexloop is not installed in this Python: run `bash setup.sh`, then `uv run python cli.py ...`."
    found = Path(str(dexloop.__file__)).resolve().parent
    if found != here:
        return f"`dexloop` is {found}, not {here}: run `bash setup.sh` here, then `uv run python cli.py ...`."
    return None


def parse(argv: list[str] | None = None) -> Any:
    """The command that ``argv`` asks for, with its settings; ``run()`` does it. Exits where it asks for none."""
    import tyro
    from dexloop.collect.command import Collect
    from dexloop.collect.rehearse import Rehearse
    from dexloop.collect.replay import Replay
    from dexloop.datasets.command import Dataset, View
    from dexloop.deploy.command import Deploy
    from dexloop.deploy.evaluation.command import Evaluate
    from dexloop.train.command import Train

    commands: dict[str, Callable[..., Any]] = {
        "collect": Collect,
        "replay": Replay,
        "view": View,
        "dataset": Dataset,
        "rehearse": Rehearse,
        "train": Train,
        "deploy": Deploy,
        "evaluate": Evaluate,
    }
    return tyro.extras.subcommand_cli_from_dict(
        commands,
        prog="cli.py",
        description="From an operator's hand to a closed loop: record, replay, look at and learn dexterous grasps.",
        args=argv,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 it failed, 2 the request was wrong, 130 interrupted."""
    problem = _check_install()
    if problem:
        print(problem, file=sys.stderr)
        return 2

    from dexloop.hardware.errors import DexLoopError

    command = parse(argv)
    try:
        return int(command.run())
    except DexLoopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: what was finished is safe.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
