"""The ``serstream`` command: parse, call, print."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import serstream
from serstream import bench_commands, classify_command, config, feed_commands, model_commands
from serstream.command_line import (
    add_command,
    add_configuration,
    add_roles,
    add_set,
    channel_roles,
    configuration,
)
from serstream.errors import ConfigError, SerstreamError, SourceError

log = logging.getLogger(__name__)

RELOAD_TIMEOUT_S = 30.0
"""A source that is configured no longer has its time to end its streams."""

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What a full disk says about standard output."""

DEFAULT_ENDPOINT = config.FeedSettings().endpoint


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 when it went well, 2 when the user can mend what went wrong, 130 when interrupted."""
    if sys.stdout is None:  # closed by whoever started us
        sys.stdout = Path(os.devnull).open("w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal knows every emoji
    arguments = _parser().parse_args(argv)
    _log(logging.DEBUG if arguments.verbose else logging.INFO)
    try:
        code: int = arguments.command(arguments)
        sys.stdout.flush()  # what cannot be written shows here, not at exit
    except SerstreamError as error:
        print(f"serstream: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("serstream: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our lines has closed the pipe.
        _silence_output()
        return 0
    except OSError as error:
        if error.filename is not None or error.errno not in _CANNOT_WRITE:
            raise
        _silence_output()
        print(
            f"serstream: error: standard output: cannot write: {error.strerror}; what was written before is "
            "there, free space or write elsewhere",
            file=sys.stderr,
        )
        return 2
    return code


def _silence_output() -> None:
    """Else Python would try once more at exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _log(level: int) -> None:
    from serstream.service.journal import JournalHandler, under_journal

    handler, format = (
        (JournalHandler(), "%(message)s")
        if under_journal(os.environ)
        else (logging.StreamHandler(), "%(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level, format=format, handlers=[handler])


def _run(arguments: argparse.Namespace) -> int:
    from serstream.service.log_limit import GrowingPauses
    from serstream.service.signals import Signals

    signals = Signals()  # from here on, before the imports that take long
    for handler in logging.root.handlers:
        handler.addFilter(GrowingPauses())
    from serstream.service.daemon import Daemon

    def load() -> config.Settings:
        return configuration(arguments)[0]

    return Daemon(load, arguments.config.parent, signals).run()


def _replay(arguments: argparse.Namespace) -> int:
    if arguments.rules:
        _refuse_what_scores(arguments)
        return feed_commands.print_trials(arguments)
    settings, base = configuration(arguments)
    roles = channel_roles(arguments)
    jobs = (os.cpu_count() or 1) if arguments.jobs is None else arguments.jobs
    if jobs < 1:
        raise ConfigError(f"--jobs is {jobs}, wanted at least 1")
    if arguments.output:
        from serstream.replay_command import replay_into

        return replay_into(arguments.output, arguments.file, settings, base, roles, jobs)
    from serstream.emotion.loading import load_model
    from serstream.feed.coding import encode
    from serstream.replay import recording_events, replay

    model = load_model(settings.model, base)
    failed = 0
    for path in arguments.file:
        try:
            for message in replay(recording_events(path, roles, settings, base), settings, model):
                sys.stdout.buffer.write(encode(message) + b"\n")
        except SourceError as error:
            print(f"serstream: error: {error}", file=sys.stderr)
            failed = 2
        sys.stdout.flush()
    return failed


def _refuse_what_scores(arguments: argparse.Namespace) -> None:
    of_scoring = {
        "-c": arguments.config,
        "--roles": arguments.roles or None,
        "-o": arguments.output,
        "-j": arguments.jobs,
    }
    if given := [option for option, value in of_scoring.items() if value is not None]:
        raise ConfigError(
            f"replay --rules with {', '.join(given)}: rules are tried on events that were recorded before, "
            "wanted no option that scores; leave it out, or score the recordings first"
        )


def _listen(arguments: argparse.Namespace) -> int:
    from serstream.feed import subscribe
    from serstream.feed.coding import encode
    from serstream.feed.silence import Silences

    # A daemon never tells a client with another daemon's keys that it is refused.
    silences = Silences("; is it running, and are these its keys?" if arguments.keys else "; is it running?")
    with (
        suppress(KeyboardInterrupt),  # its only end
        subscribe(*arguments.endpoints, keys=arguments.keys) as subscription,
    ):
        while True:
            for event in subscription.receive(0.5):
                sys.stdout.buffer.write(encode(event) + b"\n")
                sys.stdout.flush()
            for line in silences.update(subscription.silent()):
                log.warning("%s", line)
    return 0


def _live(arguments: argparse.Namespace) -> int:
    from serstream.view.live import run_live

    with suppress(KeyboardInterrupt):
        run_live(*arguments.endpoints, keys=arguments.keys)
    return 0


def _devices(_arguments: argparse.Namespace) -> int:
    from serstream.audio.portaudio import input_devices

    print("\n".join(str(device) for device in input_devices()) or "no input device found")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from serstream.service.check import check

    settings, base = configuration(arguments)
    model = check(settings, base)
    n_sources = len(settings.rtp) + len(settings.microphone) + len(settings.file)
    print(
        f"{arguments.config}: fine; {n_sources} source(s), model {model.metadata.reference} "
        f"({', '.join(model.metadata.labels)}) on {model.providers[0]}, feed {settings.feed.endpoint}"
    )
    return 0


def _status(arguments: argparse.Namespace) -> int:
    import msgspec

    from serstream.service.control import StatusRequest, ask

    status = ask(_control(arguments), StatusRequest())
    if arguments.json:
        sys.stdout.buffer.write(msgspec.json.encode(status) + b"\n")
        return 0
    from serstream.view.status import describe

    print(describe(status))
    return 0


def _reload(arguments: argparse.Namespace) -> int:
    from serstream.service.control import Reload, ask

    status = ask(_control(arguments), Reload(), timeout_s=RELOAD_TIMEOUT_S)
    print(f"reloaded; sources: {', '.join(status.health.sources)}")
    return 0


def _control(arguments: argparse.Namespace) -> Path:
    """Where the running daemon is asked."""
    from serstream.service.control_path import find_socket

    settings, base = configuration(arguments, only=["control"])
    return find_socket(settings.control.socket, base)


def _demo(arguments: argparse.Namespace) -> int:
    from serstream.demo import run_demo

    return run_demo()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serstream",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "serstream hears how a call feels while it happens: microphone, RTP or recordings in,\n"
            "emotions out over ZeroMQ."
        ),
        epilog="First steps:  serstream demo\n              serstream classify call.wav\n"
        "              serstream replay call.wav --roles customer,agent",
    )
    parser.add_argument("--version", action="version", version=f"serstream {serstream.__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log debug messages as well")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add = partial(add_command, commands)

    def endpoint(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "endpoints",
            nargs="*",
            default=[DEFAULT_ENDPOINT],
            metavar="ENDPOINT",
            help=f"ZeroMQ endpoint of the feed, or of several daemons' (default: {DEFAULT_ENDPOINT})",
        )
        command.add_argument(
            "--keys",
            type=Path,
            metavar="FILE",
            help="made by 'serstream keys new', for a feed that wants one",
        )

    run = add(
        "run",
        _run,
        "run the daemon",
        "Listen to the configured sources and publish emotions until Ctrl-C or SIGTERM.\n"
        "Then every stream is ended, its last window scored, and the feed closed.\n"
        "Exit code 0; 1 when a source failed through a defect; 2 when the configuration, a source\n"
        "or the model cannot be used.",
        "  serstream run -c config/serstream.toml\n  serstream live         # in another terminal",
    )
    add_configuration(run, "serstream.toml", required=True)

    replay = add(
        "replay",
        _replay,
        "score recordings, events as JSON lines",
        "Put recordings through the daemon's own pipeline, without a clock, and print what the feed would\n"
        "carry: one JSON message a line. Any format libsndfile reads, any rate; every channel is a stream.\n"
        "A network capture (pcap, pcapng) is replayed with its own timing; [[rtp]] says what is in it.\n"
        "Exit code 0; 2 when a recording could not be used, and all others were, or when nothing could be.",
        "  serstream replay call.wav --roles customer,agent\n"
        "  serstream replay call.pcap -c my.toml\n"
        "  serstream replay recordings/ -o events/      # all cores; go on after Ctrl-C with the same line\n"
        "  serstream replay *.flac | jq -r 'select(.type==\"utterance\") | [.end, .emotion] | @tsv'",
    )
    replay.add_argument(
        "file", nargs="+", type=Path, metavar="FILE", help="a recording; with -o also a folder of them"
    )
    add_configuration(replay)
    add_roles(replay)
    replay.add_argument(
        "--rules",
        type=Path,
        metavar="CONFIG",
        help="FILE holds recorded events: print what the alert rules of CONFIG (which --set may change) "
        "would have raised per hour",
    )
    replay.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="write a .jsonl file per recording; those that are there already are not scored again",
    )
    replay.add_argument(
        "-j",
        "--jobs",
        type=int,
        metavar="N",
        help=f"processes that score with -o (default: one per core, {os.cpu_count() or 1})",
    )

    endpoint(
        add(
            "listen",
            _listen,
            "print the feed as JSON lines",
            "Subscribe to a running daemon, or to several, and print every message as one line of JSON.\n"
            "What is lost for good is a line of type gap: call, stream, first and last lost sequence number.",
            "  serstream listen\n  serstream listen tcp://127.0.0.1:5556 | jq .smoothed_emotion",
        )
    )
    endpoint(
        add(
            "live",
            _live,
            "watch the calls",
            "The live view: a row per stream with role, emotion, confidence, a bar per class and the trend.\n"
            "A subscriber like any other: closing it disturbs nothing. Without a terminal it prints lines.",
            "  serstream live\n  serstream live ipc:///run/serstream/feed\n"
            "  serstream live tcp://127.0.0.1:5556 tcp://127.0.0.1:5566     # two daemons",
        )
    )
    add(
        "devices",
        _devices,
        "list the microphones",
        "Print every input device with the index and the name that [[microphone]] device takes.",
        "  serstream devices",
    )
    check = add(
        "check",
        _check,
        "check a configuration",
        "Read a configuration and load its model, without opening a source or the feed.\n"
        "Exit code 0 when the daemon could use it, 2 with the reason when not.",
        "  serstream check config/serstream.toml",
    )
    check.add_argument("config", type=Path, metavar="CONFIG", help="serstream.toml")
    add_set(check)
    status = add(
        "status",
        _status,
        "how the running daemon is",
        "Ask the running daemon how it is: sources, streams, windows by outcome, packets by fate, model.\n"
        "Exit code 0 when it answers, 2 when none runs or it does not answer.",
        "  serstream status\n  serstream status --json | jq .health.windows",
    )
    status.add_argument("--json", action="store_true", help="print everything as one line of JSON")
    reload = add(
        "reload",
        _reload,
        "let the running daemon read its configuration again",
        "As SIGHUP, but it waits for the result. Calls in progress do not notice.\n"
        "Exit code 0 when it is done; 2 with the reason when it is refused and nothing has changed, or when\n"
        "a new source could not be opened and all the rest has changed.",
        "  serstream reload",
    )
    for command in (status, reload):
        add_configuration(command, "serstream.toml, for its control.socket")
    add(
        "demo",
        _demo,
        "a sample call through a real daemon",
        "Start a daemon, play the sample call to it as two G.711 RTP streams in real time, and watch.\n"
        "Ends by itself within a minute with a summary; exit code 1 if a window was lost.",
        "  serstream demo",
    )
    classify_command.add_parser(commands)
    model_commands.add_parser(commands)
    feed_commands.add_parsers(commands)
    bench_commands.add_parser(commands)
    return parser
