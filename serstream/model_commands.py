"""``serstream models ...``: what is in the repository, what is active, and how to change it.

A running daemon is asked through its control endpoint; without one the repository's pointer is written, which
the next start reads.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from serstream.command_line import add_command, add_configuration, add_group, configuration, table_console
from serstream.errors import ControlError, ModelError, NotRunningError

if TYPE_CHECKING:
    from serstream.command_line import Commands
    from serstream.emotion.store import ModelStore
    from serstream.service.control import Accepted, Change
    from serstream.service.status import ComparisonStatus, ModelStatus

LOADING_TIMEOUT_S = 210.0
POLL_INTERVAL_S = 0.1


def add_parser(commands: Commands) -> None:
    """Add ``models`` and its commands to ``serstream``."""
    group = add_group(
        commands,
        "models",
        "list, check and change models",
        "Models live in numbered versions in a repository; one is active. They work while\n"
        "the daemon runs (through its control socket) and while it does not (its next start follows).\n"
        "Calls in progress do not notice a change: every window is scored by one model.",
        "  serstream models list -c /etc/serstream/serstream.toml\n"
        "  serstream models canary cnn-lstm@11 --share 0.1\n"
        "  serstream models activate cnn-lstm@11\n  serstream models rollback",
    )

    def add(name: str, run: Callable[[argparse.Namespace], int], help: str) -> argparse.ArgumentParser:
        command = add_command(group, name, run, help)
        add_configuration(command, "the daemon's serstream.toml (default: defaults)")
        return command

    add("list", _list, "every version, and which is active")
    add("show", _show, "what a model says about itself, and its card").add_argument(
        "model", metavar="NAME[@V]", help="without a version: the newest"
    )
    verify = add(
        "verify", _verify, "run all checks on a version's folder or a model.onnx; exit code 2: refused"
    )
    verify.add_argument("path", type=Path, metavar="PATH")
    add("activate", _activate, "check a version, then score with it").add_argument("model", metavar="NAME@V")
    add("rollback", _rollback, "go back to the version that was active before")
    shadow = add("shadow", _shadow, "compare a version with the active one on live windows")
    shadow.add_argument("model", metavar="NAME@V", nargs="?", default="")
    shadow.add_argument("--off", action="store_true", help="end the comparison")
    canary = add(
        "canary", _canary, "let a version score a share of the calls; it goes by itself if it does badly"
    )
    canary.add_argument("model", metavar="NAME@V", nargs="?", default="")
    canary.add_argument(
        "--share", type=float, help="of the calls that begin, above 0 to 1 (default: model.canary_share)"
    )
    canary.add_argument("--off", action="store_true", help="end it: its calls go on with the active model")
    add("status", _status, "the active model, the last refusal, and how a shadow and a canary do")


class _Place:
    """The daemon and the repository that a configuration speaks of."""

    def __init__(self, arguments: argparse.Namespace):
        from serstream.emotion.store import open_store
        from serstream.service.control_path import find_socket

        settings, base = configuration(arguments, only=["control", "model"])
        if settings.model.path:
            raise ModelError(
                f"model.path names one file, {settings.model.path}; set model.repository to have versions"
            )
        self.store: ModelStore = open_store(settings.model, base)
        self.socket = find_socket(settings.control.socket, base)

    def change(self, request: Change) -> Accepted | None:
        """The running daemon takes the request; None when none runs."""
        from serstream.service.control import ask

        try:
            return ask(self.socket, request)
        except NotRunningError:
            return None

    def status(self) -> ModelStatus | None:
        """Of the running daemon; None when none runs."""
        from serstream.service.control import StatusRequest, ask

        try:
            return ask(self.socket, StatusRequest()).model
        except NotRunningError:
            return None

    def wait(self, accepted: Accepted, became: Callable[[ModelStatus], str]) -> ModelStatus:
        """Until the daemon has loaded or refused a model.

        Args:
            accepted: what the daemon said when it was asked.
            became: the one that is now what this one was to become; it may have been that before, too.

        Raises:
            ControlError: it refused, ended, or takes too long.
        """
        model = accepted.model
        deadline = time.monotonic() + LOADING_TIMEOUT_S
        while (status := self.status()) is not None and status.loading == model:
            if time.monotonic() > deadline:
                raise ControlError(f"{model} is still being loaded after {LOADING_TIMEOUT_S:.0f} s")
            time.sleep(POLL_INTERVAL_S)
        if status is None:
            raise ControlError(f"the daemon ended while it loaded {model}; see its log")
        refusal = status.refusal if status.refusals > accepted.refusals else None
        if model != became(status) or (refusal and refusal.model == model):
            reason = refusal.reason if refusal else "see its log"
            raise ControlError(f"{model} refused, {status.name} stays active: {reason}")
        return status


def _list(arguments: argparse.Namespace) -> int:
    place = _Place(arguments)
    marks: dict[str | None, str]
    try:
        status = place.status()
    except ControlError as error:
        print(f"serstream: {error}; what the next start should use:", file=sys.stderr)
        status = None
    if status:
        shadow = status.shadow.name if status.shadow else None
        marks = {status.previous: f"previous{_awaited(status)}", shadow: "shadow", status.name: "active"}
    else:
        pointer = place.store.pointer()
        marks = {pointer.previous: "previous", pointer.shadow: "shadow", pointer.active: "active"}
    for reference in place.store.references():
        print(f"{reference!s:<32} {marks.get(str(reference), '')}".rstrip())
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from rich.table import Column, Table

    from serstream.emotion.model import EmotionModel

    store = _Place(arguments).store
    file = store.file(store.resolve(arguments.model))
    model = EmotionModel(file)
    about = model.metadata
    table = Table("", Column(overflow="fold"), show_header=False, box=None)
    table.add_row("model", about.reference)
    table.add_row("file", str(file))
    table.add_row("sha256", model.sha256)
    table.add_row("labels", ", ".join(about.labels))
    table.add_row("licence", about.licence)
    table.add_row("training data", "\n".join(about.training_data))
    table.add_row("protocol", about.protocol)
    table.add_row("metrics", "\n".join(f"{name} {value:.4g}" for name, value in about.metrics.items()))
    table.add_row("temperature", f"{about.temperature:g}")
    table.add_row("abstain below", f"{about.abstain_below:g}")
    table_console().print(table)
    card = file.with_name("card.md")
    if card.is_file():
        print(f"\n{card.read_text(encoding='utf-8')}", end="")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from serstream.emotion.inspection import inspect_apart

    passed = inspect_apart(arguments.path)
    print(f"{arguments.path}: fine; {passed.reference}, SHA-256 {passed.sha256}")
    return 0


def _activate(arguments: argparse.Namespace) -> int:
    from serstream.service.control import Activate

    place = _Place(arguments)
    if accepted := place.change(Activate(arguments.model)):
        status = place.wait(accepted, lambda status: status.name)
        print(f"{status.name} is active on {status.providers[0]}; before: {status.previous or 'none'}")
        return 0
    return _point_at(place, arguments.model)


def _rollback(arguments: argparse.Namespace) -> int:
    from serstream.service.control import Rollback

    place = _Place(arguments)
    if accepted := place.change(Rollback()):
        status = place.wait(accepted, lambda status: status.name)
        print(f"{status.name} is active again; before: {status.previous}")
        return 0
    previous = place.store.pointer().previous
    if previous is None:
        raise ModelError("no model was active before this one; use 'serstream models activate NAME@V'")
    return _point_at(place, previous)


def _shadow(arguments: argparse.Namespace) -> int:
    from serstream.emotion.inspection import inspect_apart
    from serstream.service.control import SetShadow

    if bool(arguments.model) == arguments.off:
        raise ControlError("wanted NAME@V, or --off to end the comparison")
    place = _Place(arguments)
    if accepted := place.change(SetShadow(arguments.model)):
        if arguments.model:
            place.wait(accepted, lambda status: status.shadow.name if status.shadow else "")
            print(f"{accepted.model} is compared with the active model; see 'serstream models status'")
        else:
            print(f"{accepted.model or 'no model'} is compared no longer")
        return 0
    reference = place.store.resolve(arguments.model) if arguments.model else None
    if reference:
        if str(reference) == place.store.pointer().active:
            raise ModelError(f"{reference} is active: its next start scores every call with it")
        inspect_apart(place.store.file(reference).parent)
    place.store.set_shadow(reference)
    print(f"no daemon listens at {place.socket}; its next start compares {reference or 'no model'}")
    return 0


def _canary(arguments: argparse.Namespace) -> int:
    from serstream.service.control import SetCanary

    if bool(arguments.model) == arguments.off:
        raise ControlError("wanted NAME@V, or --off to end the canary")
    if arguments.share is not None and not 0 < arguments.share <= 1:
        raise ControlError(f"--share is {arguments.share:g}, wanted above 0 and at most 1")
    place = _Place(arguments)
    accepted = place.change(SetCanary(arguments.model, arguments.share))
    if accepted is None:
        raise NotRunningError(
            f"no daemon listens at {place.socket}, and a canary needs its calls; "
            "start it with 'serstream run'"
        )
    if arguments.off:
        print(f"{accepted.model or 'no model'} is the canary no longer")
        return 0
    status = place.wait(accepted, lambda status: status.canary.name if status.canary else "")
    share = status.canary.share if status.canary else 0.0
    print(f"{accepted.model} scores {share:.0%} of the calls that begin; see 'serstream models status'")
    return 0


def _point_at(place: _Place, model: str) -> int:
    from serstream.emotion.inspection import inspect_apart

    reference = place.store.resolve(model)
    inspect_apart(place.store.file(reference).parent)
    place.store.activate(reference)
    print(f"no daemon listens at {place.socket}; its next start uses {reference}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    place = _Place(arguments)
    status = place.status()
    if status is None:
        pointer = place.store.pointer()
        print(f"no daemon listens at {place.socket}; its next start uses the following")
        print(f"active     {pointer.active}")
        print(f"previous   {pointer.previous or '-'}")
        print(f"shadow     {pointer.shadow or '-'}")
        return 0
    print(f"active     {status.name} on {', '.join(status.providers)}")
    print(f"previous   {status.previous or '-'}{_awaited(status)}")
    print(f"loading    {status.loading or '-'}")
    print(f"exchanged  {status.swaps} times, {status.refusals} refused")
    if status.refusal:
        print(f"refused    {status.refusal.model} at {status.refusal.time}: {status.refusal.reason}")
    if shadow := status.shadow:
        print(f"shadow     {shadow.name}: {_compared(shadow)}; {shadow.skipped} windows skipped")
    else:
        print("shadow     -")
    if canary := status.canary:
        print(
            f"canary     {canary.name}: {canary.calls} calls, {canary.share:.0%} of those that begin; "
            f"{_compared(canary)}; failed on {canary.errors}"
        )
    else:
        print("canary     -")
    return 0


def _awaited(status: ModelStatus) -> str:
    """Behind the name of the model before."""
    return " (should be active)" if status.fallback else ""


def _compared(status: ComparisonStatus) -> str:
    won = ", ".join(f"{label} {count}" for label, count in status.emotions.items())
    return (
        f"{status.windows} windows compared, agreement {status.agreement:.1%}, "
        f"confidence {status.confidence_shift:+.3f}, {status.latency_ms:.1f} ms a window; {won}"
    )
