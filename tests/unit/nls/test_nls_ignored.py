"""What has no effect is taken with any value, and is listed."""

from __future__ import annotations

import json
from itertools import count

import pytest

from app.core.project import DEFAULT_PROJECT
from app.nls.connection import Connection
from app.nls.ignored import IGNORED
from app.nls.namespaces import NAMESPACES
from app.nls.outputs import OpenRecognition, OpenSynthesis, OpenTextStream, Output
from app.nls.task import Limits


def start(namespace: str, payload: dict[str, object]) -> Output:
    ids = count(1)
    connection = Connection(
        authorize=lambda token, appkey: DEFAULT_PROJECT,
        new_id=lambda: f"{next(ids):032x}",
        limits=Limits(),
        now=0.0,
    )
    header = {
        "message_id": "0" * 32,
        "task_id": "a" * 32,
        "namespace": namespace,
        "name": NAMESPACES[namespace].START,
        "appkey": "k",
    }
    (output,) = connection.text(json.dumps({"header": header, "payload": payload}), 0.0)
    return output


@pytest.mark.parametrize(
    "option",
    [
        "SpeechRecognizer.audio_address",
        "SpeechTranscriber.enable_ignore_sentence_timeout",
        "SpeechTranscriber.enable_multi_thresh_mod",
        "SpeechTranscriber.enable_nlp",
        "SpeechTranscriber.enable_semantic_sentence_detection",
        "SpeechTranscriber.nlp_model",
        "SpeechSynthesizer.enable_phoneme_timestamp",
        "SpeechSynthesizer.method",
        "SpeechLongSynthesizer.enable_phoneme_timestamp",
        "SpeechLongSynthesizer.method",
        "FlowingSpeechSynthesizer.enable_phoneme_timestamp",
        "FlowingSpeechSynthesizer.platform",
    ],
)
def test_ignored_options(option: str) -> None:
    namespace, name = option.split(".")
    assert IGNORED[namespace][name]
    whole: dict[str, object] = {} if namespace == "FlowingSpeechSynthesizer" else {"text": "hi"}
    plain = start(namespace, whole)
    assert isinstance(plain, OpenRecognition | OpenSynthesis | OpenTextStream)
    values: list[object] = [None, True, "true", "?", -1, 1e300, [], {"a": [None]}]
    for value in values:
        assert start(namespace, {**whole, name: value}) == plain


def test_every_ignored_option_has_a_test() -> None:
    (mark,) = test_ignored_options.pytestmark  # type: ignore[attr-defined]  # set by pytest
    listed = {
        f"{namespace}.{name}"
        for namespace in IGNORED.keys() & NAMESPACES.keys()
        for name in IGNORED[namespace]
    }
    assert listed == set(mark.args[1])
