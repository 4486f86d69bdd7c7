"""CPU of the live view with 500 calls at 10 frames a second, as share of one core.

The view runs as it does in a terminal, except that its frames go to memory. A window for each of 500 streams
arrives every second. Counted is the CPU time from received bytes to drawn frame.

    python benchmarks/live_view.py
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import random
import sys
import time
from pathlib import Path

from rich.console import Console

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from feed_channel import HEADER, joined  # the tests' own
from scripted_feed import LABELS, Script

from serstream.feed.coding import encode, topic
from serstream.feed.messages import Message
from serstream.view.live import FRAME_S, LiveView


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--width", type=int, default=80)
    parser.add_argument("--height", type=int, default=24)
    arguments = parser.parse_args()
    dice = random.Random(1)
    scripts = [Script(f"call-{i:04}", f"call-{i:04}-c") for i in range(arguments.calls)]
    turns = itertools.cycle(scripts)
    console = Console(
        file=io.StringIO(), force_terminal=True, width=arguments.width, height=arguments.height,
        color_system="truecolor",
    )  # fmt: skip
    inbox = joined().inbox
    frames = round(arguments.seconds / FRAME_S)
    per_frame = round(arguments.calls * FRAME_S)
    decoding = drawing = 0.0
    with LiveView(console, "benchmark") as view:
        for script in scripts:
            started = script.started()
            inbox.arrived(frames_of(started), 0.0)
            view.update(started, 0.0)
        for frame in range(frames):
            now = frame * FRAME_S
            arriving = [next(turns).window(2.0 + now, dice.choice(LABELS)) for _ in range(per_frame)]
            received = [frames_of(message) for message in arriving]
            before = time.process_time()
            for parts in received:
                inbox.arrived(parts, now)
            inbox.events.clear()
            between = time.process_time()
            for message in arriving:
                view.update(message, now)
            view.refresh(now)
            after = time.process_time()
            decoding += between - before
            drawing += after - between
            console.file = io.StringIO()
    print(
        json.dumps(
            {
                "calls": arguments.calls,
                "frames_per_s": round(1 / FRAME_S),
                "size": f"{arguments.width}x{arguments.height}",
                "share_of_a_core": round((decoding + drawing) / arguments.seconds, 3),
                "of_it_decoding": round(decoding / arguments.seconds, 3),
                "ms_per_frame": round(1000 * drawing / frames, 2),
            }
        )
    )


def frames_of(message: Message) -> list[bytes]:
    return [topic(message), HEADER, encode(message)]


if __name__ == "__main__":
    main()
