"""The ``serstream-train`` command: parse, call, print."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import Progress, TaskID

from serstream.emotion.model import EmotionModel
from serstream.emotion.store import MODEL_FILE, SUMS_FILE, ModelStore
from serstream.errors import ConfigError, SerstreamError
from trainer import corpora, device, inventory, recipe, report
from trainer.comparison import command as comparison
from trainer.corpora.clip import content
from trainer.evaluation import MIN_SPEAKERS
from trainer.experiment import TEST_CONDITIONS, Workplace, run, train_all
from trainer.export import write_model
from trainer.folds import PROTOCOLS
from trainer.history import Epoch
from trainer.predictions import RUN_FILE, read_run
from trainer.publish import learned, publish, recordings_of
from trainer.trained import load, save

logger = logging.getLogger(__name__)

SEEDS = 3
"""Trainings of each fold that a mean and a deviation want."""
MAX_VERSION = 999_999_999
"""Of a model; a `Reference` has nine digits at most."""

_GOES_ON = "An interrupted command goes on where it stopped when it is given again."

_EXAMPLES = {
    "corpora": """
  serstream-train corpora --data ~/corpora
  serstream-train corpora --data ~/corpora --picture counts.png""",
    "prepare": """
  serstream-train prepare trainer/recipes/cnn-lstm.toml --data ~/corpora""",
    "train": """
  serstream-train train trainer/recipes/cnn-lstm.toml --data ~/corpora
  serstream-train train trainer/recipes/cnn-lstm.toml --data ~/corpora --device cuda""",
    "evaluate": """
  serstream-train evaluate trainer/recipes/cnn-lstm.toml --data ~/corpora
  serstream-train evaluate trainer/recipes/cnn-lstm.toml --data ~/corpora --protocol corpora
  serstream-train evaluate trainer/recipes/emo-db.toml --data ~/corpora --protocol emo-db-loso""",
    "report": """
  serstream-train report runs/cnn-lstm-141387b8/speakers
  serstream-train report runs/*/*/""",
    "compare": """
  serstream-train compare --corpus emo-db --corpus ravdess --data ~/corpora
  serstream-train compare d1 c2 --corpus crema-d --protocol speakers --full --data ~/corpora""",
    "export": """
  serstream-train export trainer/recipes/cnn-lstm.toml --data ~/corpora --model-version 12""",
    "publish": """
  serstream-train publish models/cnn-lstm/12 --repository /var/lib/serstream/models \\
      --held-out my-calls --data ~/corpora""",
}
_ALL_EXAMPLES = f"""examples, from recordings to a model in a running daemon:
  serstream-train corpora --data ~/corpora
  serstream-train evaluate trainer/recipes/cnn-lstm.toml --data ~/corpora
  serstream-train train trainer/recipes/cnn-lstm.toml --data ~/corpora
  serstream-train export trainer/recipes/cnn-lstm.toml --data ~/corpora --model-version 12
  serstream-train publish models/cnn-lstm/12 --repository models.d --held-out my-calls --data ~/corpora
  serstream models activate cnn-lstm@12

{_GOES_ON}
Every command has examples of its own: serstream-train COMMAND --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 when it went well, 2 when the user can mend what went wrong."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        arguments.command(arguments)
    except SerstreamError as error:
        print(f"serstream-train: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        # A folder that may not be written, a full disk: what was finished is kept.
        print(f"serstream-train: error: {error.filename or 'writing'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("serstream-train: interrupted; give the command again to go on", file=sys.stderr)
        return 130
    return 0


def _corpora(arguments: argparse.Namespace) -> None:
    stock = inventory.take(arguments.data)
    inventory.show(stock, Console())
    if arguments.picture and stock.found:
        inventory.draw(stock.found, arguments.picture)
    if stock.faults:
        raise corpora.CorpusError("\n".join(stock.faults))


def _prepare(arguments: argparse.Namespace) -> None:
    wanted = recipe.load(arguments.recipe)
    workplace = _workplace(arguments)
    windows = workplace.windows(wanted)
    workplace.windows(wanted, TEST_CONDITIONS)
    if before := workplace.before(wanted):
        workplace.windows(before)
    print(f"{len(windows.clip)} training windows of {len(windows.clips)} clips: {workplace.runs / 'cache'}")


def _train(arguments: argparse.Namespace) -> None:
    wanted = _to_the_last_epoch(arguments.recipe)
    workplace = _workplace(arguments)
    with _Telling(wanted.training.epochs) as telling:
        trained = train_all(wanted, workplace, telling)
    path = workplace.weights(wanted)
    save(wanted, trained, path)
    print(path)


def _to_the_last_epoch(path: Path) -> recipe.Recipe:
    """A recipe whose folds were trained as the model of all speakers is."""
    wanted = recipe.load(path)
    if wanted.training.choose_epoch:
        raise ConfigError(
            f"recipe {path}: training.choose_epoch is true, wanted false: nobody is left to validate when "
            "all speakers are trained on, so what was evaluated would not be what is exported"
        )
    return wanted


def _evaluate(arguments: argparse.Namespace) -> None:
    if arguments.seeds < 1:
        raise ConfigError(f"--seeds is {arguments.seeds}, wanted 1 or more")
    wanted, protocol = recipe.load(arguments.recipe), PROTOCOLS[arguments.protocol]
    workplace = _workplace(arguments)
    if protocol.corpus is not None and protocol.corpus not in wanted.corpora:
        raise ConfigError(
            f"protocol {protocol.name} tests {protocol.corpus}, but recipe {arguments.recipe} has corpora "
            f"{', '.join(wanted.corpora)}; add it there or choose another protocol"
        )
    with _Telling(wanted.training.epochs) as telling:
        predictions = run(wanted, protocol, range(arguments.seeds), workplace, telling)
    folder = workplace.folder(wanted) / protocol.name
    report.write(wanted, protocol, predictions, folder)
    print(folder / "report.md")


def _report(arguments: argparse.Namespace) -> None:
    finished = [folder for folder in arguments.run if (folder / RUN_FILE).is_file()] or arguments.run
    failed = []
    for folder in arguments.run:
        if folder not in finished:
            print(f"{folder}: skipped, it has no {RUN_FILE}", file=sys.stderr)
            continue
        try:
            wanted, protocol, predictions = read_run(folder)
            report.write(wanted, PROTOCOLS[protocol], predictions, folder)
        except SerstreamError as error:
            failed.append(str(error))
        else:
            print(folder / "report.md")
    if failed:
        raise ConfigError("\n".join(failed))


def _export(arguments: argparse.Namespace) -> None:
    wanted = _to_the_last_epoch(arguments.recipe)
    if not 1 <= arguments.model_version <= MAX_VERSION:
        raise ConfigError(f"--model-version is {arguments.model_version}, wanted 1 to {MAX_VERSION}")
    folder: Path = arguments.models / wanted.name / str(arguments.model_version)
    if (folder / SUMS_FILE).exists():  # written last
        raise ConfigError(f"{folder}: exists and a version never changes; give another --model-version")
    workplace = _workplace(arguments)
    runs = [read_run(path.parent) for path in sorted(workplace.folder(wanted).glob(f"*/{RUN_FILE}"))]
    measured = {protocol: predictions for _, protocol, predictions in runs}
    if "speakers" not in measured:
        raise ConfigError(
            f"recipe {arguments.recipe}: it was never measured on held-out speakers; run "
            f"'serstream-train evaluate {arguments.recipe} --protocol speakers' first"
        )
    for protocol, predictions in measured.items():
        if (seeds := len({part.seed for part in predictions.parts})) < SEEDS:
            logger.warning(
                "protocol %s: measured with %s of %s seeds, too few for a mean and a deviation; run "
                "'serstream-train evaluate %s --protocol %s' for a card that can be compared",
                protocol,
                seeds,
                SEEDS,
                arguments.recipe,
                protocol,
            )
    trained = load(wanted, workplace.weights(wanted))
    difference = write_model(wanted, trained, measured, workplace, folder, arguments.model_version)
    print(f"{folder}: torch and ONNX Runtime differ by at most {difference:.1g}")


def _publish(arguments: argparse.Namespace) -> None:
    if not 0 <= arguments.floor <= 1:  # not so for NaN either
        raise ConfigError(f"--floor is {arguments.floor:g}, wanted 0 to 1")
    known = learned(EmotionModel(arguments.model / MODEL_FILE))
    for name in arguments.held_out:
        if name.casefold() in known:
            raise ConfigError(
                f"--held-out {name}: {arguments.model} was trained on it; name recordings it never saw"
            )
    clips = corpora.read_all(arguments.held_out, arguments.data)
    heard = recordings_of(known, arguments.data)
    if copies := [clip.path for clip in clips if content(clip.path) in heard]:
        raise ConfigError(
            f"--held-out: {arguments.model} was trained on {len(copies)} of the {len(clips)} recordings, the "
            f"first is {copies[0]}; name recordings it never saw"
        )
    store = ModelStore(arguments.repository)
    folder, judgement, comparison = publish(arguments.model, clips, store, arguments.floor)
    print(
        f"{folder}: UAR {judgement.uar:.1%} on {judgement.clips} clips of {judgement.speakers} speakers, "
        "first windows"
    )
    if isinstance(comparison, str):
        print(f"not compared: {comparison}")
        return
    low, high = (100 * bound for bound in comparison.difference)
    few = f"; too few for a verdict, wanted {MIN_SPEAKERS}" if comparison.speakers < MIN_SPEAKERS else ""
    print(
        f"against {comparison.active} on the same {comparison.speakers} speakers, first windows: "
        f"{low:+.1f} to {high:+.1f} points (95 %){few}"
    )


def _workplace(arguments: argparse.Namespace) -> Workplace:
    return Workplace(arguments.data, arguments.folds, arguments.runs, device.choose(arguments.device))


class _Telling:
    """Epochs as a progress bar on a terminal, as plain lines elsewhere."""

    def __init__(self, epochs: int):
        self._epochs = epochs
        self._progress = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Callable[[str, Epoch], None]:
        return self._tell

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _tell(self, title: str, epoch: Epoch) -> None:
        line = f"{title}: epoch {epoch.epoch}/{self._epochs}, loss {epoch.loss:.3f}"
        line += f", UAR {100 * epoch.train_uar:.1f} %"
        if epoch.valid_uar == epoch.valid_uar:  # not NaN: there are validation speakers
            line += f", validation UAR {100 * epoch.valid_uar:.1f} %"
        line += f", {epoch.seconds:.0f} s ({100 * epoch.loading:.0f} % loading)"
        if self._progress.disable:
            print(line, file=sys.stderr, flush=True)
            return
        self._progress.start()  # not before: the features have a bar of their own
        if title not in self._tasks:
            self._tasks[title] = self._progress.add_task(title, total=self._epochs)
        self._progress.update(self._tasks[title], description=line, completed=epoch.epoch)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serstream-train",
        description="Make models for serstream from recordings of acted or labelled emotions.",
        epilog=_ALL_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"examples:{_EXAMPLES[name]}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=command)
        return sub

    def add_recipe(
        name: str, command: Callable[[argparse.Namespace], None], text: str
    ) -> argparse.ArgumentParser:
        sub = add(name, command, text)
        sub.add_argument("recipe", type=Path, help="a TOML file, see trainer/recipes/")
        _add_data(sub)
        sub.add_argument(
            "--folds", type=Path, default=Path("folds"), help="folder of fold files (%(default)s)"
        )
        _add_training(sub)
        return sub

    listing = add("corpora", _corpora, "List the corpora found: clips by emotion, speakers, sex, licences.")
    _add_data(listing)
    listing.add_argument("--picture", type=Path, help="also draw the counts into this PNG")
    add_recipe("prepare", _prepare, f"Compute and cache the features of a recipe with its seed.\n{_GOES_ON}")
    add_recipe("train", _train, f"Train a recipe on all speakers of its corpora.\n{_GOES_ON}")
    measuring = add_recipe(
        "evaluate", _evaluate, f"Measure a recipe under a protocol and write its report.\n{_GOES_ON}"
    )
    measuring.add_argument("--protocol", choices=PROTOCOLS, default="speakers", help="(%(default)s)")
    measuring.add_argument(
        "--seeds",
        type=int,
        default=SEEDS,
        help="trainings of each fold, by seeds 0, 1, ... (%(default)s)",
    )
    again = add("report", _report, "Write the reports of finished runs again, without training.")
    again.add_argument("run", type=Path, nargs="+", help="folder of a run, runs/NAME-HASH/PROTOCOL")
    comparing = add("compare", comparison.compare, f"Compare the systems of the founding studies. {_GOES_ON}")
    _add_data(comparing)
    _add_training(comparing)
    comparison.add_arguments(comparing)
    exporting = add_recipe("export", _export, "Write a trained and measured recipe as a model folder.")
    exporting.add_argument("--model-version", type=int, required=True, help="1, 2, ...")
    exporting.add_argument("--models", type=Path, default=Path("models"), help="(%(default)s)")
    publishing = add("publish", _publish, "Judge an exported model and add it to a daemon's repository.")
    publishing.add_argument("model", type=Path, help="folder with model.onnx, e.g. models/cnn-lstm/11")
    _add_data(publishing)
    publishing.add_argument("--repository", type=Path, required=True, help="the daemon's model repository")
    publishing.add_argument(
        "--held-out", nargs="+", required=True, metavar="CORPUS", help="corpora it never heard"
    )
    publishing.add_argument("--floor", type=float, default=0.4, help="least UAR, 0 to 1 (%(default)s)")
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of corpora (%(default)s)")


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where results and caches go (%(default)s)"
    )
    parser.add_argument(
        "--device",
        choices=get_args(device.Device),
        default="auto",
        help="computes the network; auto is CUDA where there is any (%(default)s)",
    )
