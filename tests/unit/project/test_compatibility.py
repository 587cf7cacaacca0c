"""docs/compatibility.md agrees with the protocol, with the code, and with the tests that it names.

Nothing is run here: tests are found by their syntax.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.api.nls_ws import PATHS
from app.api.pop import ACTIONS
from app.nls.ignored import IGNORED
from app.nls.namespaces import NAMESPACES

ROOT = Path(__file__).resolve().parents[3]
PAGE, TRANSLATION = "compatibility.md", "compatibility.zh.md"
STATES = {"supported": "支持", "ignored": "忽略", "different": "不同", "missing": "尚无"}

SECTION_OF = {
    "SpeechRecognizer": "2.1",
    "SpeechTranscriber": "3.1",
    "SpeechSynthesizer": "4.1",
    "SpeechLongSynthesizer": "4.1",
    "FlowingSpeechSynthesizer": "5.1",
    "/stream/v1/asr": "6.1",
    "/stream/v1/tts": "6.2",
    "/stream/v1/FlashRecognizer": "6.3",
    "SubmitTask": "6.5",
}
"""Where the parameters are that ``IGNORED`` lists by namespace, path or action."""

OUT_OF_SCOPE = {
    "DialogResultGenerated": "the dialogue of the C++ SDK",
    "WakeWordVerificationCompleted": "wake words of the C++ SDK",
}

WITHOUT_A_TEST_YET = {71: "asynchronous synthesis is not there"}
"""Numbers of the checklist that no row can name."""


# --- reading Markdown ------------------------------------------------------------------------


def document(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def parts(text: str, level: str) -> dict[str, str]:
    """The text below each heading of this level, until the next one of it or above."""
    pieces = re.split(rf"^(#{{2,{len(level)}}}) (.+)$", text, flags=re.MULTILINE)
    return {
        title: body
        for marks, title, body in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True)
        if marks == level
    }


def table_rows(text: str) -> list[list[str]]:
    """The cells of all tables, without their heads."""
    found: list[list[str]] = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        ahead = lines[number + 1] if number + 1 < len(lines) else ""
        is_head = line.startswith("|---") or ahead.startswith("|---")
        if line.startswith("|") and not is_head:
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            found.append([cell.strip() for cell in cells])
    return found


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@dataclass(frozen=True)
class Row:
    section: str
    """The numbers of the protocol's sections in the heading: "1.4, 1.7"; or the heading."""
    what: str
    state: str
    here: str
    proofs: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return codes(self.what)


def rows_of(name: str) -> list[Row]:
    found = []
    for title, text in parts(document(name), "###").items():
        numbers = re.search(r"\((.+)\)$", title)
        for cells in table_rows(text):
            what, state, here, *proof = cells
            section = numbers[1] if numbers else title
            found.append(Row(section, what, state, here, tuple(codes("".join(proof)))))
    return found


@functools.cache
def page() -> list[Row]:
    return rows_of(PAGE)


def named(section: str, *states: str) -> set[str]:
    """The names of the rows about a section, in any of these states."""
    return {
        name
        for row in page()
        if section in re.split(r", | to ", row.section) and (not states or row.state in states)
        for name in row.names
    }


@functools.cache
def protocol(section: str) -> str:
    """A section of nls-protocol.md by its number, without what is FunSpeech's own."""
    text = document("nls-protocol.md")
    level = "###" if "." in section else "##"
    (body,) = [
        body for title, body in parts(text, level).items() if re.match(rf"{section}\.? ", title)
    ]
    return body


def first_cells(section: str) -> list[str]:
    return [cells[0] for cells in table_rows(protocol(section))]


def identifiers(cell: str) -> list[str]:
    """The names in a cell such as ``vocabulary_id, customization_id`` or ``a / b (C++ …)``."""
    return re.findall(r"[A-Za-z][\w.-]*", re.sub(r"\(.*?\)", "", cell))


# --- the page itself -------------------------------------------------------------------------


def test_every_row_is_whole() -> None:
    assert len(page()) > 200
    for row in page():
        assert row.state in STATES, row
        assert row.names or row.what, row
        assert row.here or row.state in ("supported", "ignored"), f"say how: {row}"
        assert row.proofs or row.state == "missing", f"prove it: {row}"


def test_no_name_is_in_two_rows_of_a_section() -> None:
    names = [
        (row.section, name)
        for row in page()
        for name in row.names
        if row.section != "5.2"  # there rows are events, several of which have the same field
    ]
    assert [each for each in names if names.count(each) > 1] == []


def test_the_translation_has_the_same_rows() -> None:
    english, chinese = page(), rows_of(TRANSLATION)
    assert [(row.names, STATES[row.state], bool(row.here)) for row in english] == [
        (row.names, row.state, bool(row.here)) for row in chinese
    ]
    for ours, theirs in zip(english, chinese, strict=True):
        assert set(codes(ours.here)) == set(codes(theirs.here)), (ours, theirs)


def test_the_translation_has_the_same_headings_and_code() -> None:
    def outline(text: str) -> list[tuple[str, ...]]:
        return re.findall(r"^(#+) .*?(\([\d.]+.*\))?$", re.sub("至", "to", text), re.MULTILINE)

    def blocks(text: str) -> list[str]:
        return re.findall(r"^```\w+\n.*?^```", text, re.MULTILINE | re.DOTALL)

    english, chinese = document(PAGE), document(TRANSLATION)
    assert outline(english) == outline(chinese)
    assert blocks(english) == blocks(chinese)


@pytest.mark.parametrize("name", [PAGE, TRANSLATION])
def test_its_links_lead_somewhere(name: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", document(name)):
        assert not target or (ROOT / "docs" / target).is_file(), target
        headings = re.findall(r"^#+ (.+)$", document(target or name), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}
        assert not anchor or anchor in anchors, (target, anchor)


# --- proofs ----------------------------------------------------------------------------------


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@functools.cache
def named_tests(path: Path) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {each.name: each for each in functions(tree) if each.name.startswith("test_")}


def values_of(path: Path, test: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """What its parameters are literally, also through names of the module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {
        name.id
        for mark in test.decorator_list
        for name in ast.walk(mark)
        if isinstance(name, ast.Name)
    }
    places: list[ast.AST] = [*test.decorator_list]
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id in used for target in node.targets
        ):
            places.append(node.value)
    return {
        str(node.value)
        for place in places
        for node in ast.walk(place)
        if isinstance(node, ast.Constant)
    }


@functools.cache
def conformance() -> set[int]:
    """The numbers of the checklist that have a test. That none of them is skipped is the business
    of tests/conformance."""
    return {
        int(match[1])
        for path in (ROOT / "tests" / "conformance").glob("test_*.py")
        for name in named_tests(path)
        if (match := re.match(r"test_(\d\d)_", name))
    }


def complaint(proof: str) -> str:
    """What is wrong with a proof; "" for a good one."""
    if match := re.fullmatch(r"9\.(\d+)", proof):
        return "" if int(match[1]) in conformance() else f"no test of number {match[1]}"
    if proof.endswith(".jsonl"):
        transcript = ROOT / "tests" / "protocol" / "transcripts" / proof
        return "" if transcript.is_file() else f"no transcript {proof}"
    match = re.fullmatch(r"([\w/]+\.py)::(\w+)(?:\[(.+)\])?", proof)
    if match is None:
        return f"no proof: {proof}"
    path = ROOT / "tests" / match[1]
    if not path.is_file() or match[2] not in named_tests(path):
        return f"no test {proof}"
    if match[3] and match[3] not in values_of(path, named_tests(path)[match[2]]):
        return f"no parameter {proof}"
    return ""


def test_every_proof_is_there() -> None:
    assert [text for row in page() for proof in row.proofs if (text := complaint(proof))] == []


def checklist() -> set[int]:
    return {int(n) for n in re.findall(r"^(\d+)\. ", protocol("9"), re.MULTILINE)}


def test_every_number_of_the_checklist_proves_a_row() -> None:
    cited = {
        int(proof.removeprefix("9."))
        for row in page()
        for proof in row.proofs
        if re.fullmatch(r"9\.\d+", proof)
    }
    assert cited == checklist() - WITHOUT_A_TEST_YET.keys()


# --- complete: the protocol ------------------------------------------------------------------


@pytest.mark.parametrize(
    "section",
    ["1.3", "1.4", "2.1", "2.2", "3.1", "4.1", "4.2", "4.3", "6.1", "6.2", "6.3", "6.5", "7.1"],
)
def test_every_name_of_the_protocols_tables_has_a_row(section: str) -> None:
    names = {name for cell in first_cells(section) for name in identifiers(cell)}
    assert len(names) > 3
    assert names - named(section) == set()


def test_every_field_of_the_transcribers_events_has_a_row() -> None:
    fields = {
        name
        for cells in table_rows(protocol("3.3"))
        for name in identifiers(cells[1] if len(cells) > 3 else cells[0])
    }
    assert {"stash_result", "emo_confidence", "language"} <= fields
    assert fields - named("3.3") == set()


def test_every_directive_and_event_has_a_row() -> None:
    names = set(re.findall(r"`([A-Z][A-Za-z]+)`", protocol("1.6")))
    names |= {name for kind in NAMESPACES.values() for name in (kind.START, *kind.DIRECTIVES)}
    assert len(names) > 20
    assert names - named("1.6") - OUT_OF_SCOPE.keys() == set()


def test_every_part_of_the_flowing_namespace_has_a_row() -> None:
    directives = table_rows(protocol("5.1"))
    start = re.sub(r"\(.*?\)", "", directives[0][1])
    fields = {piece.split()[0] for piece in start.split(",")}
    assert {"voice", "platform", "aigc_propagate_id"} <= fields
    assert fields | {cells[0] for cells in directives} <= named("5.1")
    events = table_rows(protocol("5.2"))
    told = {name for cells in events for name in codes(cells[1]) if name.isidentifier()}
    assert ({cells[0] for cells in events} | told) - {"TextLengthHD"} == named("5.2")


@pytest.mark.parametrize(("section", "columns"), [("8.1", [0]), ("8.2", [0, 2])])
def test_every_code_has_a_row(section: str, columns: list[int]) -> None:
    cells = {cells[each] for cells in table_rows(protocol(section)) for each in columns}
    there = {cell for cell in cells if cell.isdecimal()}
    assert len(there) > 20
    assert there - named(section) == set()


def test_every_address_of_the_protocol_has_a_row() -> None:
    there = set(re.findall(r"/(?:ws|stream|rest|pop)/[\w./-]*\w", document("nls-protocol.md")))
    assert {"/ws/v1", "/rest/v1/tts/async", "/pop/2018-05-18/tokens"} <= there
    assert there - named("1.1") - named("6") - named("7") == set()
    assert {"CreateToken", "SubmitTask", "GetTaskResult"} <= named("7")


# --- complete: the code ----------------------------------------------------------------------


def test_every_address_of_the_server_has_a_row() -> None:
    routes = set(PATHS)
    for path in sorted((ROOT / "app" / "api").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        routes |= set(re.findall(r'@routes\.\w+\(\s*"(/[^"{]*)"', text))
    assert "/stream/v1/FlashRecognizer" in routes
    listed = named("1.1") | named("6") | named("7") | named("Only here")
    assert routes - listed == set()


def test_every_signed_call_has_a_row() -> None:
    assert set(ACTIONS) - named("7", "supported") == set()


def test_every_code_that_is_sent_is_said_to_be() -> None:
    sent = set()
    for path in sorted((ROOT / "app" / "nls").glob("*.py")):
        for code in re.findall(r"\bStatus\(\s*(\d{8})\b", path.read_text(encoding="utf-8")):
            sent.add(code)
    assert {"20000000", "40020105", "50000001"} <= sent
    assert sent - named("8.1", "supported") - named("8.2", "supported") == set()


READERS = {"boolean", "integer", "number", "string", "silence_ms", "given", "_bounded", "_offset"}


def read_by_the_code() -> set[str]:
    """Parameters that are read by a name in the source."""
    names: set[str] = set()
    paths = [*(ROOT / "app" / "nls").glob("*.py"), *(ROOT / "app" / "api").glob("rest_*.py")]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called, arguments = node.func, node.args
            if isinstance(called, ast.Name) and called.id in READERS:
                arguments = arguments[1:]
            elif not (
                isinstance(called, ast.Attribute)
                and called.attr == "get"
                and ast.unparse(called.value) in {"values", "payload", "fields", "place",
                                                  "request.query_params", "query"}
            ):  # fmt: skip
                continue
            if arguments and isinstance(name := arguments[0], ast.Constant):
                names.add(str(name.value))
    return names


def test_what_the_code_reads_has_an_effect() -> None:
    names = read_by_the_code()
    assert {"max_sentence_silence", "text", "audio_address", "tw_time_offset"} <= names
    told = {name for each in SECTION_OF.values() for name in named(each, "supported", "different")}
    assert names - told == set()


@pytest.mark.parametrize("where", IGNORED)
def test_what_has_no_effect_is_said_to_have_none(where: str) -> None:
    assert set(IGNORED[where]) - named(SECTION_OF[where], "ignored") == set()


def test_what_is_said_to_have_no_effect_has_none() -> None:
    for where, section in SECTION_OF.items():
        # It reads what the WebSocket reads, but has no place for subtitles.
        besides = {"enable_subtitle"} if where == "/stream/v1/tts" else set()
        assert named(section, "ignored") == set(IGNORED.get(where, {})) | besides
