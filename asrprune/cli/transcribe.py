"""The command that transcribes recordings."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asrprune.cli.app import app
from asrprune.cli.options import Context, DecoderName, Gpus, Layers, LmFile, Threads, decoder_given, use_threads
from asrprune.cli.screen import say
from asrprune.config.strategies import PREFERRED
from asrprune.runtime.errors import UserError

if TYPE_CHECKING:
    from asrprune.recognizer import Recognizer


@app.command()
def transcribe(
    recordings: Annotated[
        list[str],
        typer.Argument(
            help="audio files (wav, flac, mp3, ogg, SPHERE, ...) of any sample rate and number of channels; folders of them;"
            " patterns such as 'talks/*.mp3'; -: standard input"
        ),
    ],
    exp: Annotated[Path | None, typer.Option("--exp", help="experiment directory; runs in torch")] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="FILE.onnx of `asrprune export`; runs in onnxruntime, without torch")
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            "--depth",
            min=1,
            help="number of layers to run; --plan gives the layers; default: all, or that of `asrprune set-depth`",
        ),
    ] = None,
    layers: Layers = None,
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan", help=f"a strategy or a plan file, with --exp; default: {PREFERRED}; if it is missing, the lowest layers"
        ),
    ] = None,
    decoder: DecoderName = None,
    lm: LmFile = None,
    context: Context = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="text; json: a line each, with times of words; srt, vtt: subtitles; ctm, tsv: a word a line",
        ),
    ] = "text",
    words: Annotated[bool, typer.Option("--words", help="the same as --format json")] = False,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", help="write a file for each recording here, instead of all to the screen")
    ] = None,
    early_exit: Annotated[
        bool,
        typer.Option("--early-exit", help="run layers until the model is sure enough; `asrprune early-exit` chooses how sure"),
    ] = False,
    exit_threshold: Annotated[
        float | None,
        typer.Option("--exit-threshold", min=0.0, max=1.0, help="early exit as soon as the model is this sure, 0 to 1"),
    ] = None,
    low_memory: Annotated[bool, typer.Option("--low-memory", help="with --model: less memory, more time")] = False,
    nj: Annotated[int, typer.Option("--nj", min=1, max=1000, help="number of processes")] = 1,
    ngpu: Gpus = 0,
    threads: Threads = None,
) -> None:
    """Transcribe recordings at any depth. Those that cannot be read are listed at the end; the exit status is then 1."""
    use_threads(threads)
    from asrprune.transcribe.formats import check_form
    from asrprune.transcribe.recordings import find_recordings
    from asrprune.transcribe.run import transcribe_all

    if words and form not in ("text", "json"):
        raise UserError(f"--words means --format json; remove it, or --format {form}")
    form = check_form("json" if words else form)
    found, faults = find_recordings(recordings)
    early_exit = early_exit or exit_threshold is not None
    if early_exit and not (depth is layers is plan is None):
        raise UserError("early exit chooses the layers; remove --depth, --layers and --plan")
    recognizer, keep = _load(exp, model, depth, layers, plan, decoder_given(decoder, lm, context), ngpu, low_memory)
    if early_exit:
        run = partial(recognizer.transcribe_many, depth="auto", exit_threshold=exit_threshold)
    else:
        run = partial(recognizer.transcribe_many, layers=keep)
    faults += transcribe_all(run, found, form, output_dir, partial(say, only_here=output_dir is None), nj, ngpu)
    if faults:
        raise UserError("\n".join(faults))


def _load(
    exp: Path | None,
    model: Path | None,
    depth: int | None,
    layers: str | None,
    plan: str | None,
    decoder: dict[str, object],
    num_gpus: int,
    low_memory: bool,
) -> "tuple[Recognizer, tuple[int, ...]]":
    """Return the recogniser of ``--exp`` or ``--model``, and the layers of ``--depth`` or ``--layers``."""
    from asrprune.experiment.plan import parse_layers
    from asrprune.recognizer import Recognizer

    if (exp is None) == (model is None):
        raise UserError("give either --exp DIR, an experiment, or --model FILE.onnx, an exported model")
    if low_memory and model is None:
        raise UserError("--low-memory is a mode of exported models; give one with --model, or remove --low-memory")
    if plan is not None and model is not None:
        raise UserError(f"--model {model}: has a plan of its own, which `asrprune export --plan` chooses; remove --plan")
    if plan is not None and layers is not None:
        raise UserError("--plan has no effect with --layers; remove it, or use --depth instead of --layers")
    if plan is not None and depth is None:
        raise UserError("--plan needs a depth; add --depth N")
    if model is not None and model.suffix != ".onnx":
        raise UserError(f"--model {model}: the name of an exported model ends in .onnx; an experiment is given with --exp")
    if num_gpus and exp is not None:
        from asrprune.runtime.hardware import check_gpus

        check_gpus(1)
    recognizer = Recognizer.load(model or exp or "", plan, "cuda" if num_gpus else "cpu", decoder, low_memory)
    chosen = None if layers is None else parse_layers(layers, recognizer.model.num_layers)
    return recognizer, recognizer.layers_of(depth, chosen)
