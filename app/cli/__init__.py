"""The command ``funspeech``: what each command takes. What it does is in the module of its name,
imported when it is called, so that ``funspeech --help`` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from app import __version__
from app.cli import owner

cli = typer.Typer(
    name="funspeech",
    help="A self-hosted speech server that takes the place of Alibaba Cloud NLS.",
    epilog="Settings come from the environment and from the file .env; see .env.example.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # commands inherit it
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Url = Annotated[
    str | None,
    typer.Option(
        help="Address of the server, such as http://127.0.0.1:8000.",
        show_default="this machine, HOST and PORT of the settings",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        help="Access token.", show_default="APPTOKEN of the settings, for a server on this machine"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """The entry point of ``funspeech`` and of ``python -m app``."""
    try:
        cli(prog_name="funspeech")
    except Exception as error:  # a mistake of ours: say it in one line, like every other error
        if sys.flags.dev_mode:
            raise
        typer.echo(
            f"funspeech: internal error ({type(error).__name__}: {error}); "
            "'python -X dev -m app …' shows where. Please report it.",
            err=True,
        )
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"funspeech {__version__}")
        raise typer.Exit


@cli.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@cli.command("serve")
def _serve() -> None:
    """Start the server."""
    from app.cli.serve import serve

    serve()


@cli.command("transcribe")
def _transcribe(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Sound files (wav, mp3, m4a, flac, opus …), or raw 16-bit mono PCM with "
            "--sample-rate."
        ),
    ],
    url: Url = None,
    token: Token = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per file and line.")
    ] = False,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime",
            help="Send at the speed of speech, as a microphone would; WAV and raw PCM only.",
        ),
    ] = False,
    sample_rate: Annotated[
        int | None,
        typer.Option(min=1, help="Rate in Hz of files that are raw PCM.", show_default=False),
    ] = None,
    punctuation: Annotated[
        bool,
        typer.Option(help="Ask for punctuation: funasr has it, and sherpa with a model for it."),
    ] = True,
    itn: Annotated[
        bool,
        typer.Option(
            "--itn/--no-itn", help="Ask for numbers, dates and amounts in figures, as people write."
        ),
    ] = True,
    max_sentence_silence: Annotated[
        int | None,
        typer.Option(
            min=200,
            max=6000,
            help="Silence in ms that ends a sentence.",
            show_default="the server's",
        ),
    ] = None,
) -> None:
    """Recognise speech files through the running server."""
    from app.cli.transcribe import Options, transcribe

    transcribe(
        files,
        Options(
            json=json,
            realtime=realtime,
            sample_rate=sample_rate,
            punctuation=punctuation,
            itn=itn,
            max_sentence_silence=max_sentence_silence,
        ),
        url=url,
        token=token,
    )


@cli.command("say")
def _say(
    text: Annotated[str, typer.Argument(help="What to say; - reads it from standard input.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File to write; the end of its name is the format: .wav, .pcm, .mp3, .opus, .ogg, "
            ".opu, .aac or .flac; - is WAV on standard output.",
        ),
    ] = Path("say.wav"),
    voice: Annotated[
        str | None,
        typer.Option(help="One of 'funspeech voices'.", show_default="the server's"),
    ] = None,
    rate: Annotated[int, typer.Option(min=8000, max=48000, help="Sample rate in Hz.")] = 16_000,
    speed: Annotated[
        int, typer.Option(min=-500, max=500, help="-500 is half as fast, 500 twice as fast.")
    ] = 0,
    pitch: Annotated[int, typer.Option(min=-500, max=500, help="Lower or higher voice.")] = 0,
    volume: Annotated[int, typer.Option(min=0, max=100, help="Loudness.")] = 50,
    url: Url = None,
    token: Token = None,
) -> None:
    """Speak a text through the running server, into a file."""
    from app.cli.say import Manner, say

    manner = Manner(voice=voice, sample_rate=rate, speed=speed, pitch=pitch, volume=volume)
    say(text, output, manner, url=url, token=token)


@cli.command("levels")
def _levels(
    file: Annotated[Path, typer.Argument(help="A sound file, or raw PCM with --sample-rate.")],
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="RMS below which sound counts as far away.",
            show_default="ASR_NEARFIELD_RMS_THRESHOLD",
        ),
    ] = None,
    max_sentence_silence: Annotated[
        int,
        typer.Option(
            min=200, max=6000, help="Silence in ms that ends a sentence, as the client asks for it."
        ),
    ] = 800,
    sample_rate: Annotated[
        int | None,
        typer.Option(min=1, help="Rate in Hz of a file that is raw PCM.", show_default=False),
    ] = None,
    json: Json = False,
    png: Annotated[
        Path | None,
        typer.Option(help="Picture to write, too.", show_default=False),
    ] = None,
) -> None:
    """Show how loud a recording is, and what the near-field filter would silence."""
    from app.cli.levels import levels

    levels(
        file,
        threshold=threshold,
        max_sentence_silence=max_sentence_silence,
        sample_rate=sample_rate,
        json=json,
        png=png,
    )


@cli.command("eval")
def _eval(
    manifest: Annotated[
        Path,
        typer.Argument(
            help='JSON lines ({"audio": "a.wav", "text": "what was said"}), a wav.scp with its '
            "text file, or a folder of sound files with a .txt beside each."
        ),
    ],
    a: Annotated[
        list[str] | None,
        typer.Option(
            "--a",
            metavar="NAME=VALUE",
            help="A setting of configuration A; may be repeated.",
            show_default="the settings as they are",
        ),
    ] = None,
    b: Annotated[
        list[str] | None,
        typer.Option(
            "--b",
            metavar="NAME=VALUE",
            help="A setting of configuration B; may be repeated.",
            show_default="A alone is evaluated",
        ),
    ] = None,
    a_url: Annotated[
        str | None, typer.Option(help="A is this running server.", show_default=False)
    ] = None,
    b_url: Annotated[
        str | None, typer.Option(help="B is this running server.", show_default=False)
    ] = None,
    a_token: Annotated[
        str | None, typer.Option(help="Access token for --a-url.", show_default=False)
    ] = None,
    b_token: Annotated[
        str | None, typer.Option(help="Access token for --b-url.", show_default=False)
    ] = None,
    speed: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="How many times faster than speech the clips are sent; 0 is as fast as the server "
            "takes them. Latencies are those of live clients at 1 only.",
        ),
    ] = 1.0,
    parallel: Annotated[int, typer.Option(min=1, help="Clips at the same time.")] = 4,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Compare numbers as they were written, and do not ask for figures; otherwise "
            "twenty and 20 are the same.",
        ),
    ] = False,
    sample_rate: Annotated[
        int | None,
        typer.Option(min=1, help="Rate in Hz of files that are raw PCM.", show_default=False),
    ] = None,
    worst: Annotated[
        int, typer.Option(min=0, help="Clips to list, those that differ most first.")
    ] = 10,
    copy_to: Annotated[
        Path | None,
        typer.Option(help="Folder to copy the listed clips to.", show_default=False),
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="JSON file to write, too.", show_default=False)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture (PNG) to write, too.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the confidence interval's draws.")] = 0,
) -> None:
    """Measure errors and speed over your own recordings, for one configuration or two.

    A configuration is a server that is started for this, with the settings of .env and those of
    --a or --b, or one that runs (--a-url, --b-url).

    Exit codes: 0 all clips were compared; 1 some are missing (each is named), or nothing could be
    compared; 2 the command line is wrong.
    """
    from app.cli.evaluate import Output, Side, evaluate
    from app.cli.evaluate_stream import Pace

    evaluate(
        manifest,
        Side(a or [], a_url, a_token),
        Side(b or [], b_url, b_token),
        Pace(speed=speed, parallel=parallel, numerals=not raw, sample_rate=sample_rate),
        Output(most=worst, json=json, plot=plot, copy_to=copy_to),
        seed=seed,
    )


@cli.command("restart-workers")
def _restart_workers(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Workers such as asr-0.", show_default="all"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the server.", show_default="PORT"),
    ] = None,
) -> None:
    """Restart the engine workers of the server on this machine one by one; no task is lost."""
    from app.cli.restart_workers import restart_workers

    restart_workers(names or [], port)


@cli.command("voices")
def _voices(url: Url = None, token: Token = None, json: Json = False) -> None:
    """List the voices of the running server."""
    from app.cli.voices import voices

    voices(url=url, token=token, json=json)


@cli.command("doctor")
def _doctor() -> None:
    """Find out what is missing or wrong, and what to do."""
    from app.cli.doctor import doctor

    doctor()


models = typer.Typer(
    help="Model files: list them, download them, check them. Works without the server.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
cli.add_typer(models, name="models")

ModelNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="Models such as ct-punc.", show_default=False),
]


@models.command("list")
def _models_list(json: Json = False) -> None:
    """List the models: what for, how large, needed by the settings or not, here or not."""
    from app.cli.models import list_models

    list_models(json=json)


@models.command("pull")
def _models_pull(names: ModelNames = None) -> None:
    """Download models, by default those that the settings need; goes on where it was broken off,
    and fetches again what is damaged."""
    from app.cli.models import pull

    pull(names or [])


@models.command("verify")
def _models_verify(names: ModelNames = None) -> None:
    """Compare models with their checksums, by default all that are here or needed."""
    from app.cli.models import verify

    verify(names or [])


owner.add_to(cli)
