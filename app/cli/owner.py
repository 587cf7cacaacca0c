"""The commands of the server's owner on its database, and ``cert``: what each takes. What it does
is in the module of its name, imported when it is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Appkey = Annotated[str, typer.Argument(help="As clients send it; '*' is the default project.")]
WordsFile = Annotated[
    Path,
    typer.Argument(
        help="A word and its weight (-6 to 5) in each line, or a JSON object from words to "
        "weights; - reads it from standard input."
    ),
]
Vocabulary = Annotated[str, typer.Argument(metavar="ID|NAME", help="A vocabulary.")]
ForAppkey = Annotated[
    str | None, typer.Option("--appkey", help="The only appkey that it is for.", show_default="any")
]
Note = Annotated[str, typer.Option("--note", help="Whom or what it is for.", show_default=False)]


def _group(help_text: str) -> typer.Typer:
    return typer.Typer(help=help_text, no_args_is_help=True, rich_markup_mode=None)


project = _group("What appkeys mean: model, language, words, defaults, voices, limits.")
vocab = _group("Lists of hotwords, for projects and for requests.")
token = _group("Tokens that this server issues.")
key = _group("Access keys, with which SDKs ask for tokens themselves (CreateToken).")


def add_to(cli: typer.Typer) -> None:
    """Make these commands part of ``cli``."""
    for name, group in (("project", project), ("vocab", vocab), ("token", token), ("key", key)):
        cli.add_typer(group, name=name)
    cli.command("usage")(_usage)
    cli.command("cert")(_cert)


# Projects

Name = Annotated[str | None, typer.Option("--name", help="For people to read.", show_default=False)]
Enabled = Annotated[
    bool | None,
    typer.Option("--enabled/--disabled", help="Whether its appkey is served.", show_default=False),
]
Model = Annotated[
    str | None,
    typer.Option("--model", help="A label of MODELS_FILE; '' is the server's.", show_default=False),
]
Rate = Annotated[
    int | None,
    typer.Option(
        "--rate",
        help="Highest rate in Hz at which its audio is heard, and that of requests which name "
        "none: 8000 for telephones; 0 for none.",
        show_default=False,
    ),
]
Language = Annotated[
    str | None,
    typer.Option(
        "--language", help="What is spoken: zh, en, …; '' lets models find out.", show_default=False
    ),
]
Vocab = Annotated[
    str | None,
    typer.Option("--vocab", help="Its vocabulary, by id or name; '' for none.", show_default=False),
]
Defaults = Annotated[
    list[str] | None,
    typer.Option(
        "--default",
        metavar="NAME=VALUE",
        help="A parameter of NLS for requests that do not give it; NAME= takes it away; may be "
        "repeated.",
        show_default=False,
    ),
]
Voices = Annotated[
    list[str] | None,
    typer.Option(
        "--voice",
        metavar="NAME",
        help="A voice that it may use; may be repeated, and replaces those of before; '' allows "
        "all.",
        show_default=False,
    ),
]
MaxTasks = Annotated[
    str | None,
    typer.Option(
        "--max-tasks",
        metavar="NUMBER",
        help="Tasks at the same time; 0: no limit; default: MAX_TASKS_PER_APPKEY.",
        show_default=False,
    ),
]
DailyAudio = Annotated[
    str | None,
    typer.Option(
        "--daily-audio",
        metavar="TIME",
        help="Audio in a day (UTC), recognised and spoken, such as 90m, 2h or 1h30m; 0: no limit.",
        show_default=False,
    ),
]
DailyCharacters = Annotated[
    int | None,
    typer.Option(
        "--daily-characters", help="Characters to speak in a day; 0: no limit.", show_default=False
    ),
]


@project.command("create")
def _project_create(
    appkey: Annotated[
        str | None, typer.Argument(help="As clients will send it.", show_default="a new one")
    ] = None,
    name: Name = None,
    enabled: Enabled = None,
    model: Model = None,
    rate: Rate = None,
    language: Language = None,
    vocabulary: Vocab = None,
    defaults: Defaults = None,
    voices: Voices = None,
    max_tasks: MaxTasks = None,
    daily_audio: DailyAudio = None,
    daily_characters: DailyCharacters = None,
    json: Json = False,
) -> None:
    """Create a project; print its appkey."""
    from app.cli.project import Changes, create

    changes = Changes(
        name=name,
        enabled=enabled,
        model=model,
        rate=rate,
        language=language,
        vocabulary=vocabulary,
        defaults=defaults or (),
        voices=voices or (),
        max_tasks=max_tasks,
        daily_audio=daily_audio,
        daily_characters=daily_characters,
    )
    create(appkey, changes, json=json)


@project.command("set")
def _project_set(
    appkey: Appkey,
    name: Name = None,
    enabled: Enabled = None,
    model: Model = None,
    rate: Rate = None,
    language: Language = None,
    vocabulary: Vocab = None,
    defaults: Defaults = None,
    voices: Voices = None,
    max_tasks: MaxTasks = None,
    daily_audio: DailyAudio = None,
    daily_characters: DailyCharacters = None,
) -> None:
    """Change a project: what is named, and nothing else."""
    from app.cli.project import Changes, change

    changes = Changes(
        name=name,
        enabled=enabled,
        model=model,
        rate=rate,
        language=language,
        vocabulary=vocabulary,
        defaults=defaults or (),
        voices=voices or (),
        max_tasks=max_tasks,
        daily_audio=daily_audio,
        daily_characters=daily_characters,
    )
    change(appkey, changes)


@project.command("list")
def _project_list(json: Json = False) -> None:
    """List the projects and what is set for them."""
    from app.cli.project import list_projects

    list_projects(json=json)


@project.command("show")
def _project_show(appkey: Appkey, json: Json = False) -> None:
    """Show all of one project."""
    from app.cli.project import show

    show(appkey, json=json)


@project.command("delete")
def _project_delete(appkey: Appkey) -> None:
    """Delete a project. What it has used stays on record."""
    from app.cli.project import delete

    delete(appkey)


# Vocabularies


@vocab.command("create")
def _vocab_create(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    file: WordsFile,
    description: Annotated[str, typer.Option(help="For people to read.", show_default=False)] = "",
    json: Json = False,
) -> None:
    """Create a vocabulary; print its id, which requests name as vocabulary_id."""
    from app.cli.vocab import create

    create(name, file, description, json=json)


@vocab.command("set")
def _vocab_set(
    vocabulary: Vocabulary,
    file: Annotated[
        Path | None,
        typer.Argument(help="The words that replace those of before.", show_default=False),
    ] = None,
    name: Annotated[str | None, typer.Option(help="A new name.", show_default=False)] = None,
    description: Annotated[
        str | None, typer.Option(help="A new description.", show_default=False)
    ] = None,
) -> None:
    """Change a vocabulary: what is named, and nothing else."""
    from app.cli.vocab import change

    change(vocabulary, file, name, description)


@vocab.command("list")
def _vocab_list(json: Json = False) -> None:
    """List the vocabularies."""
    from app.cli.vocab import list_vocabularies

    list_vocabularies(json=json)


@vocab.command("show")
def _vocab_show(vocabulary: Vocabulary, json: Json = False) -> None:
    """Print the words of a vocabulary, as create and set read them."""
    from app.cli.vocab import show

    show(vocabulary, json=json)


@vocab.command("delete")
def _vocab_delete(vocabulary: Vocabulary) -> None:
    """Delete a vocabulary. Projects that had it are left with none."""
    from app.cli.vocab import delete

    delete(vocabulary)


# Tokens and keys


@token.command("create")
def _token_create(
    hours: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=87_600, help="How long it is valid.", show_default="TOKEN_HOURS"
        ),
    ] = None,
    appkey: ForAppkey = None,
    note: Note = "",
    json: Json = False,
) -> None:
    """Issue a token and print it. It cannot be read again."""
    from app.cli.token import create

    create(hours, appkey, note, json=json)


@token.command("list")
def _token_list(json: Json = False) -> None:
    """List the tokens by their ids, with what became of them."""
    from app.cli.token import list_tokens

    list_tokens(json=json)


@token.command("revoke")
def _token_revoke(
    names: Annotated[list[str], typer.Argument(metavar="ID|TOKEN...", help="Tokens.")],
) -> None:
    """Make tokens invalid, within a second. Tasks that run go on."""
    from app.cli.token import revoke

    revoke(names)


@key.command("create")
def _key_create(appkey: ForAppkey = None, note: Note = "", json: Json = False) -> None:
    """Make an access key and print its two halves. The secret cannot be read again."""
    from app.cli.key import create

    create(appkey, note, json=json)


@key.command("list")
def _key_list(json: Json = False) -> None:
    """List the access keys, without their secrets."""
    from app.cli.key import list_keys

    list_keys(json=json)


@key.command("revoke")
def _key_revoke(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Access keys.")],
) -> None:
    """Make access keys invalid, and the tokens that were made with them."""
    from app.cli.key import revoke

    revoke(ids)


# Usage and certificates


def _usage(
    first: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DAY",
            help="First day, such as 2026-03-31 (UTC).",
            show_default="30 days before the last",
        ),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option("--to", metavar="DAY", help="Last day.", show_default="today"),
    ] = None,
    appkey: Annotated[
        str | None,
        typer.Option(help="One project; '*' is all without one of their own.", show_default="all"),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
    json: Json = False,
) -> None:
    """Show what projects have used, by day: tasks, audio and characters."""
    if csv and json:
        raise typer.BadParameter("--csv and --json exclude each other")
    from app.cli.usage import usage

    usage(first, last, appkey, "csv" if csv else "json" if json else "table")


def _cert(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="What clients call the server: host names and addresses, the first one first.",
            show_default="those of this machine",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("certs"),
    days: Annotated[
        int, typer.Option(min=1, max=3650, help="How long the certificate is valid.")
    ] = 800,
) -> None:
    """Make a certificate for https and wss on a local network, and an authority that signs it."""
    from app.cli.cert import cert

    cert(names or [], output, days)
