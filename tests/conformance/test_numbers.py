"""Each number of nls-protocol.md 9 has a test of its own, in the file of its group, and none of
them is skipped."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
CHECKLIST: Final = HERE.parents[1] / "docs" / "nls-protocol.md"

EXCEPTED: Final = {71: "synthesis in the background: jobs"}
"""What this version has not."""

FILES: Final = {
    "Handshake": "test_handshake.py",
    "Transport": "test_transport.py",
    "Envelope": "test_envelope.py",
    "SpeechRecognizer": "test_recognizer.py",
    "SpeechTranscriber": "test_transcriber.py",
    "Synthesis": "test_synthesis.py",
    "Flowing": "test_flowing.py",
    "REST": "test_rest.py",
    "Token": "test_token.py",
}

OWN_FILES: Final = {72: "test_file_transcription.py", 73: "test_file_transcription.py"}
"""Numbers that are not in the file of their group."""

SKIPPING: Final = {"skip", "skipif", "xfail", "importorskip"}


def checklist() -> dict[int, str]:
    """Each number, and the file of its group."""
    text = CHECKLIST.read_text("utf-8")
    section = re.search(r"^## 9\. .*?$(.*?)^## 10\. ", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    numbers, group = dict[int, str](), ""
    for line in section[1].splitlines():
        if line in FILES:
            group = line
        elif found := re.match(r"(\d+)\. ", line):
            assert int(found[1]) not in numbers
            numbers[int(found[1])] = OWN_FILES.get(int(found[1]), FILES[group])
    return numbers


def numbered() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every test of these files, whose name says the number."""
    for file in HERE.glob("test_*.py"):
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
                re.match(r"test_\d\d_", node.name)
            ):
                yield file.name, node


def test_every_number_has_a_test() -> None:
    expected = checklist()
    assert list(expected) == [*range(1, 78)]
    found = defaultdict[int, set[str]](set)
    for file, node in numbered():
        found[int(node.name[5:7])].add(file)
    assert {number: {expected[number]} for number in expected if number not in EXCEPTED} == found


def test_none_is_skipped() -> None:
    for file in HERE.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
            assert name not in SKIPPING, f"{file.name}:{getattr(node, 'lineno', '')}"
