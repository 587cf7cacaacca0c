"""What is delivered beside the code agrees with it: env example, READMEs, Docker, constraints."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import ssl
import subprocess
import sys
import threading
import tomllib
import wave
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import yaml

from app.core.config import Config, load
from app.core.speech import Role
from app.engines.registry import how_to_install, model_files

ROOT = Path(__file__).resolve().parents[3]
READMES = ("README.md", "README.zh.md")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- settings --------------------------------------------------------------------------------


def test_env_example_is_what_the_config_makes_of_it() -> None:
    assert read(".env.example") == script("env_example").render()


def test_env_example_has_every_field_with_its_default() -> None:
    names = re.findall(r"^([A-Z0-9_]+)=", read(".env.example"), re.MULTILINE)
    assert names == [name.upper() for name in Config.model_fields]
    assert load(ROOT / ".env.example", {}) == load(None, {})


@pytest.mark.parametrize("name", READMES)
def test_readme_table_has_every_setting_with_its_default(name: str) -> None:
    default_text = script("env_example").default_text
    rows = re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \| (.+?) \| .+ \|$", read(name), re.MULTILINE)
    assert rows == [
        (field_name.upper(), f"`{text}`" if (text := default_text(field)) else "–")
        for field_name, field in Config.model_fields.items()
    ]


def test_only_config_reads_the_environment() -> None:
    readers = []
    for path in (ROOT / "app").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        # os.environ["NAME"] = … tells a library something, and reads nothing.
        written = [
            node.value
            for node in nodes
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
        ]
        for node in nodes:
            names = ("environ", "environb", "getenv")
            if isinstance(node, ast.Attribute) and node.attr in names and node not in written:
                readers.append(path.relative_to(ROOT).as_posix())
    # The second hands the environment as a whole to the processes that it starts.
    assert set(readers) <= {"app/core/config.py", "app/serving/children.py"}


# --- READMEs ---------------------------------------------------------------------------------


def structure(markdown: str) -> list[str]:
    """Heading levels, languages of code blocks, and table rows, in order."""
    kinds = []
    for line in markdown.splitlines():
        if match := re.match(r"(#+) |(```\w+)|(\|)", line):
            kinds.append(match.group().strip())
    return kinds


def code_blocks(markdown: str) -> list[str]:
    return re.findall(r"^```\w+\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)


def test_both_readmes_have_the_same_structure_and_the_same_code() -> None:
    english, chinese = map(read, READMES)
    assert structure(english) == structure(chinese)
    assert code_blocks(english) == code_blocks(chinese)
    assert len(code_blocks(english)) >= 5


@pytest.mark.parametrize(
    "name",
    ["docs/operations.md", "docs/operations.zh.md", "deploy/README.md", "deploy/README.zh.md"],
)
def test_the_drain_delay_that_is_recommended_is_what_haproxy_needs(name: str) -> None:
    (server,) = re.findall(r"^ +server .*", read("deploy/haproxy.cfg"), re.MULTILINE)
    inter = re.search(r"check inter (\d+)s", server)
    assert inter is not None and "fall" not in server  # 3 by default
    assert f"`DRAIN_DELAY_SECONDS={3 * int(inter[1])}`" in read(name)


def test_the_operators_documents_have_the_same_structure_and_the_same_code() -> None:
    english, chinese = read("docs/operations.md"), read("docs/operations.zh.md")
    assert structure(english) == structure(chinese)
    assert code_blocks(english) == code_blocks(chinese)


def test_the_documents_of_models_have_the_same_structure_and_the_same_code() -> None:
    english, chinese = read("docs/models.md"), read("docs/models.zh.md")
    assert structure(english) == structure(chinese)
    assert code_blocks(english) == code_blocks(chinese)


@pytest.mark.parametrize("name", ["docs/models.md", "docs/models.zh.md"])
def test_the_documents_of_models_have_every_model(name: str) -> None:
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \| .* \| ([\d,]+) MB \| `(\S+)`, (\S+) \|$", read(name), re.M
    )
    files = model_files("funasr")
    assert files is not None
    assert [(row[0], int(row[1].replace(",", "")), row[2], row[3]) for row in rows] == [
        (model.name, round(model.size_bytes / 1e6), model.source, model.revision)
        for model in files.models()
    ]


@pytest.mark.parametrize("name", ["docs/models.md", "docs/models.zh.md"])
def test_the_documents_of_models_have_every_model_of_sherpa(name: str) -> None:
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \| .* \| (\d+) MB \| `(\S+)` \| .+ \|$", read(name), re.M
    )
    files = model_files("sherpa")
    assert files is not None
    assert [(row[0], int(row[1]), row[2]) for row in rows] == [
        (model.name, round(model.size_bytes / 1e6), model.source) for model in files.models()
    ]


@pytest.mark.parametrize("name", READMES)
def test_the_readmes_tell_how_much_is_downloaded(name: str) -> None:
    """In the order of the text: what pull fetches, the second pass besides, the image's models."""
    files = model_files("sherpa")
    assert files is not None
    sizes = {model.name: model.size_bytes / 1e6 for model in files.models()}
    settings = load(None, {"MODELSCOPE_CACHE": "/nowhere"}).engine_settings("sherpa")
    pulled = [
        model for role in get_args(Role) for model in files.needed(settings, role, on_card=False)
    ]
    bundle = models_of_the_image()
    besides = [model for model in bundle if model not in pulled]
    told = [int(number) for number in re.findall(r"(\d{3}) MB", read(name))]
    expected = [sum(sizes[model] for model in part) for part in (pulled, besides, bundle)]
    assert told == [pytest.approx(size, rel=0.05) for size in expected]


@pytest.mark.parametrize(
    "name",
    [
        *READMES,
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs/architecture.md",
        "docs/benchmarks.md",
        "docs/compatibility.md",
        "docs/compatibility.zh.md",
        "docs/funasr-engine.md",
        "docs/metrics.md",
        "docs/models.md",
        "docs/projects.md",
        "docs/projects.zh.md",
        "docs/models.zh.md",
        "docs/operations.md",
        "docs/operations.zh.md",
        "docs/nls-protocol.md",
        "docs/sherpa-engine.md",
        "deploy/README.md",
        "deploy/README.zh.md",
    ],
)
def test_links_to_files_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", read(name)):
        assert (ROOT / name).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("name", READMES)
def test_readme_installs_from_the_checkout(name: str) -> None:
    command = how_to_install("embedded").partition(": ")[2]
    assert f"`{command}`" in read(name)
    assert not re.search(r"install '?funspeech", read(name))


def test_cited_documents_are_in_the_repository() -> None:
    cited = set()
    for folder in ("app", "benchmarks", "scripts", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            if "node_modules" not in path.parts:
                cited |= set(re.findall(r"[\w./-]*\w\.md\b", path.read_text(encoding="utf-8")))
    folders = (ROOT, ROOT / "docs")
    assert {name for name in cited if not any((at / name).is_file() for at in folders)} == set()
    assert "nls-protocol.md" in cited


# --- Docker ----------------------------------------------------------------------------------


DOCKERFILES = ("Dockerfile", "Dockerfile.funasr")
PLAIN = ("Dockerfile", "")
WITH_MODELS = ("Dockerfile", "with-models")
FUNASR = ("Dockerfile.funasr", "")
IMAGES = (PLAIN, WITH_MODELS, FUNASR)
"""Dockerfile and target; no target is the last stage."""
SERVICES = {
    "funspeech": PLAIN,
    "funspeech-chinese": WITH_MODELS,
    "funspeech-gpu": FUNASR,
    "funspeech-cpu": FUNASR,
}
Instruction = tuple[str, str]


def lines_of(dockerfile: str) -> list[Instruction]:
    """A Dockerfile as (instruction, arguments), continued lines joined."""
    text = re.sub(r"^#.*\n", "", read(dockerfile), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    known = "ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|RUN|USER|VOLUME|WORKDIR"
    found = []
    for line in filter(str.strip, lines):
        match = re.fullmatch(rf"({known})\s+(.+)", line.strip())
        assert match is not None, f"not an instruction: {line}"
        found.append((match[1], match[2]))
    return found


def instructions(dockerfile: str, target: str = "") -> list[Instruction]:
    """What makes one image, with the stages that it starts from."""
    stages: dict[str, list[Instruction]] = {}
    last: list[Instruction] = []
    for name, rest in lines_of(dockerfile):
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            last = [*stages[base]] if base in stages else [(name, base)]
            stages[alias] = last
        else:
            last.append((name, rest))
    return stages[target]


def arguments(instruction: str, dockerfile: str, target: str = "") -> list[str]:
    return [rest for name, rest in instructions(dockerfile, target) if name == instruction]


def environment_of(dockerfile: str, target: str = "") -> dict[str, str]:
    """What ENV sets."""
    pairs = " ".join(arguments("ENV", dockerfile, target)).split()
    return dict(pair.split("=", 1) for pair in pairs)


def volumes_of(dockerfile: str, target: str = "") -> list[str]:
    return [path for line in arguments("VOLUME", dockerfile, target) for path in json.loads(line)]


def models_of_the_image() -> list[str]:
    """What the image with models has, where nobody says anything else."""
    (named,) = [a for a in arguments("ARG", *WITH_MODELS) if a.startswith("MODELS=")]
    return named.removeprefix("MODELS=").strip('"').split()


@pytest.mark.parametrize("image", IMAGES)
def test_dockerfile_starts_from_a_supported_python(image: tuple[str, str]) -> None:
    (base,) = arguments("FROM", *image)
    match = re.fullmatch(r"python:(\d+)\.(\d+)-slim", base)
    assert match is not None and (int(match[1]), int(match[2])) >= (3, 11)


@pytest.mark.parametrize("image", IMAGES)
def test_image_does_not_run_as_root_and_installs_before(image: tuple[str, str]) -> None:
    user = "root"
    for name, rest in instructions(*image):
        if name == "USER":
            user = rest
        assert name != "RUN" or user == "root"
    assert user == "funspeech"
    assert any("-c constraints.txt" in run for run in arguments("RUN", *image))


@pytest.mark.parametrize("image", IMAGES)
def test_image_serves_and_is_checked(image: tuple[str, str]) -> None:
    (command,) = arguments("CMD", *image)
    assert json.loads(command) == ["funspeech", "serve"]
    assert arguments("EXPOSE", *image) == ["8000"]
    (check,) = arguments("HEALTHCHECK", *image)
    argv = json.loads(check[check.index("[") :])
    assert argv[:2] == ["python", "-c"]
    assert "/health/live" in argv[2]
    compile(argv[2], "healthcheck", "exec")


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_the_image_copies_is_there_and_not_ignored(dockerfile: str) -> None:
    rules = [
        rule for rule in read(".dockerignore").splitlines() if rule and not rule.startswith("#")
    ]
    for copy in (rest for name, rest in lines_of(dockerfile) if name == "COPY"):
        for source in copy.split()[:-1]:
            assert (ROOT / source).exists(), source
            kept = False
            for rule in rules:
                if fnmatch(source.removeprefix("./"), rule.removeprefix("!")):
                    kept = rule.startswith("!")
            assert kept, f"{source} is left out by .dockerignore"


def test_the_funasr_image_has_the_torch_that_is_tested() -> None:
    tested = re.search(r"^TORCH \?= (\S+)$", read("Makefile"), re.MULTILINE)
    assert tested is not None
    assert arguments("ARG", "Dockerfile.funasr") == [f"TORCH={tested[1]}"]
    # Before the sources come in, so that a change of them does not fetch gigabytes again.
    order = [name for name, _ in instructions("Dockerfile.funasr")]
    assert order.index("ARG") < order.index("COPY")
    # For CPUs: the same with another torch. Each text that tells how has the version of the build.
    for name in ("Dockerfile.funasr", "docker-compose.yml", *READMES):
        assert f'--build-arg TORCH="{tested[1]} --index-url …"' in read(name)


@pytest.mark.parametrize(
    ("image", "extras"),
    [(PLAIN, "embedded,sherpa"), (FUNASR, "embedded,funasr,sherpa")],
)
def test_images_have_the_engines_that_the_documents_promise(
    image: tuple[str, str], extras: str
) -> None:
    (install,) = [run for run in arguments("RUN", *image) if "-c constraints.txt" in run]
    assert f" '.[{extras}]' " in install
    assert set(extras.split(",")) <= set(project()["optional-dependencies"])


@pytest.mark.parametrize("image", [PLAIN, FUNASR])
def test_images_without_models_keep_those_that_are_pulled(image: tuple[str, str]) -> None:
    # Where the settings look for them in the home of the image's user.
    folder = f"/home/funspeech/{Config.model_fields['modelscope_cache'].default}".replace("~/", "")
    assert "MODELSCOPE_CACHE" not in environment_of(*image)
    assert folder in volumes_of(*image)
    (users,) = [run for run in arguments("RUN", *image) if "useradd" in run]
    assert folder in re.sub(r".*mkdir -p (.*?)&&.*", r"\1", users).split()
    assert users.endswith("chown -R funspeech:funspeech /app /home/funspeech/.cache")


def test_the_funasr_image_takes_funasr() -> None:
    assert environment_of("Dockerfile.funasr")["ASR_ENGINE"] == "funasr"


def test_the_image_with_models_serves_with_them_and_no_network() -> None:
    environment = environment_of(*WITH_MODELS)
    folder = environment["MODELSCOPE_CACHE"]
    # What is written below a volume while an image is built may be lost.
    for volume in volumes_of(*WITH_MODELS):
        assert not Path(folder).is_relative_to(volume)
    assert environment["OFFLINE"] == "true"
    steps = [text for name, text in instructions(*WITH_MODELS) if name in ("ENV", "RUN")]
    assert steps.index("OFFLINE=true") > steps.index(f"MODELSCOPE_CACHE={folder}")
    (pull,) = [step for step in steps if "models pull" in step]
    assert steps.index("OFFLINE=true") > steps.index(pull)
    assert "chmod -R u=rwX,go=rX /opt/models" in pull and folder == "/opt/models"


def test_the_image_with_models_has_all_that_recognises_and_speaks() -> None:
    models = models_of_the_image()
    files = model_files("sherpa")
    assert files is not None
    assert set(models) <= {model.name for model in files.models()}
    settings = load(None, {"MODELSCOPE_CACHE": "/nowhere"}).engine_settings("sherpa")
    for role in get_args(Role):
        assert set(files.needed(settings, role, on_card=False)) <= set(models)


def service(name: str) -> dict[str, Any]:
    compose = yaml.safe_load(read("docker-compose.yml"))
    assert set(compose) == {"services"}
    assert set(compose["services"]) == set(SERVICES)
    found: dict[str, Any] = compose["services"][name]
    return found


def test_compose_starts_one_service_unless_the_other_is_named() -> None:
    assert "profiles" not in service("funspeech")
    for name in ("chinese", "gpu", "cpu"):
        assert service(f"funspeech-{name}")["profiles"] == [name]


def test_compose_overrules_a_copied_env_example() -> None:
    """It says ASR_ENGINE=auto and OFFLINE=false, and the folder of models of a run without
    Docker."""
    for name, image in SERVICES.items():
        volumes = dict(volume.split(":") for volume in service(name)["volumes"])
        pinned = service(name)["environment"]
        folder = pinned["MODELSCOPE_CACHE"]
        own = environment_of(*image)
        assert folder == own.get("MODELSCOPE_CACHE", volumes.get("~/.cache/modelscope"))
        assert pinned.get("ASR_ENGINE") == own.get("ASR_ENGINE")
        assert pinned.get("OFFLINE") == own.get("OFFLINE")


def test_compose_hides_no_models_of_the_image() -> None:
    compose = service("funspeech-chinese")
    folder = environment_of(*WITH_MODELS)["MODELSCOPE_CACHE"]
    for volume in compose["volumes"]:
        assert not Path(folder).is_relative_to(volume.split(":")[1])
    assert set(compose["build"]["args"]) <= {
        argument.partition("=")[0] for argument in arguments("ARG", *WITH_MODELS)
    }


def test_compose_reserves_the_cards() -> None:
    (devices,) = service("funspeech-gpu")["deploy"]["resources"]["reservations"]["devices"]
    assert devices == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    for name in set(SERVICES) - {"funspeech-gpu"}:
        assert "deploy" not in service(name)


@pytest.mark.parametrize("name", SERVICES)
def test_compose_service(name: str) -> None:
    compose = service(name)
    assert compose["container_name"] == name
    assert compose["ports"] == ["8000:8000"]
    assert compose["restart"] == "unless-stopped"
    assert compose["env_file"] == [{"path": ".env", "required": False}]
    build = compose["build"]
    build = {"context": build} if isinstance(build, str) else build
    assert build["context"] == "."
    assert (build.get("dockerfile", "Dockerfile"), build.get("target", "")) == SERVICES[name]
    unknown = set(compose["environment"]) - {name.upper() for name in Config.model_fields}
    assert unknown == set()
    assert load(None, compose["environment"]).port == 8000


@pytest.mark.parametrize("name", SERVICES)
def test_compose_volumes_are_where_the_settings_look(name: str) -> None:
    volumes = dict(volume.split(":") for volume in service(name)["volumes"])
    config = load(None, {})
    assert volumes["./data"] == f"/app/{config.data_dir}"
    assert volumes["./voices"] == f"/app/{config.voices_dir}"
    assert volumes["./logs"] == f"/app/{config.log_file.parent}"
    models = "~/.cache/modelscope"
    assert (models in volumes) == (SERVICES[name] != WITH_MODELS)
    assert volumes.get(models, "/opt/models") == service(name)["environment"]["MODELSCOPE_CACHE"]
    for local in ("data", "logs", "voices"):
        assert (ROOT / local / ".gitkeep").exists()


class Alive(BaseHTTPRequestHandler):
    """Answers /health/live, and nothing else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health/live" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
@pytest.mark.parametrize("tls", [False, True])
def test_health_check_of_the_image_finds_the_server(tls: bool, dockerfile: str) -> None:
    (check,) = arguments("HEALTHCHECK", dockerfile)
    _, *rest = json.loads(check[check.index("[") :])
    with ThreadingHTTPServer(("127.0.0.1", 0), Alive) as server:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(ROOT / "tests/support/self_signed.pem")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever).start()

        def exit_code(port: int) -> int:
            settings = {"PORT": str(port), "SSL_CERTFILE": "certs/cert.pem" if tls else ""}
            run = [sys.executable, *rest]
            return subprocess.run(run, env=settings, stderr=subprocess.DEVNULL).returncode

        try:
            assert exit_code(server.server_port) == 0
        finally:
            server.shutdown()
    assert exit_code(server.server_port) != 0


@pytest.mark.parametrize("name", SERVICES)
def test_compose_leaves_the_health_check_to_the_image(name: str) -> None:
    assert "healthcheck" not in service(name)


# --- installation ----------------------------------------------------------------------------


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads(read("pyproject.toml"))["project"]
    return table


def normalised(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def test_constraints_pin_every_dependency() -> None:
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    assert all(re.match(r"[a-z0-9.-]+==\S+( ; .+)?$", line) for line in lines if line)
    pinned = {normalised(line) for line in lines if line}
    extras = project()["optional-dependencies"]
    wanted = [*project()["dependencies"], *extras["embedded"], *extras["sherpa"]]
    wanted += [*extras["postgres"], *extras["dev"]]
    assert {normalised(requirement) for requirement in wanted} - pinned == set()


@pytest.mark.parametrize("name", ["constraints.txt", "tests/compat/node/package-lock.json"])
def test_locked_versions_name_no_index(name: str) -> None:
    hints = r"index-url|trusted-host|find-links|\"resolved\"|://\S*/simple|file:/"
    assert not re.search(hints, read(name))


def test_command_is_installed_by_the_package() -> None:
    assert project()["scripts"] == {"funspeech": "app.cli:main"}


def test_shell_scripts_parse() -> None:
    for name in (".ci/run", "scripts/make_examples.sh"):
        subprocess.run(["bash", "-n", str(ROOT / name)], check=True)
        assert (ROOT / name).stat().st_mode & 0o111, f"{name} is not executable"


def test_missing_tools_fail_only_where_everything_is_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = script("missing_tools")
    monkeypatch.setattr(tools, "missing", lambda: ["flying carpet"])
    monkeypatch.delenv("REQUIRE_ALL", raising=False)
    assert tools.main() == 0
    assert "missing: flying carpet" in capsys.readouterr().out
    monkeypatch.setenv("REQUIRE_ALL", "1")
    assert tools.main() == 1
    monkeypatch.setattr(tools, "missing", lambda: [])
    assert tools.main() == 0


def test_env_example_script_runs_from_anywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/env_example.py")],
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode() == read(".env.example")


# --- example audio ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.wav")), ids=lambda p: p.name)
def test_example_audio(path: Path) -> None:
    with wave.open(str(path)) as source:
        assert source.getparams()[:3] == (1, 2, 16_000)
        assert 1 < source.getnframes() / 16_000 < 12
    assert path.with_suffix(".txt").read_text().strip()


def test_examples_are_small() -> None:
    sizes = [path.stat().st_size for path in (ROOT / "examples").iterdir()]
    assert len(sizes) >= 5 and sum(sizes) < 600_000
