"""The cloud's calls for hotword vocabularies, Version 2018-11-20 (help.aliyun.com, document 98005).

A vocabulary belongs to the server, so only an access key that is not bound to an appkey may use
them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
import uuid
from collections.abc import Mapping
from typing import Final

import msgspec

from app.access.rows import VocabularyRow
from app.api.pop_calls import Action, PopCall
from app.nls.parameters import integer
from app.nls.pop import PopError, invalid
from app.nls.vocabulary import MAX_DESCRIPTION_CHARS, MAX_NAME_CHARS, word_weights
from app.storage.errors import StorageError

_PAGE_SIZE: Final = 10
_MAX_PAGE_SIZE: Final = 100
_MAX_ID_CHARS: Final = 64


def _unbound(action: Action) -> Action:
    """``action``, for keys that are not bound to an appkey."""

    @functools.wraps(action)
    async def checked(call: PopCall) -> dict[str, object]:
        if call.key.appkey is not None:
            raise PopError(
                "NoPermission", 403, "This access key is for one appkey: vocabularies are not its."
            )
        return await action(call)

    return checked


@_unbound
async def create(call: PopCall) -> dict[str, object]:
    """CreateAsrVocab: Name, WordWeights, Description → VocabId."""
    row = VocabularyRow(
        id=uuid.uuid4().hex,
        name=_named(call),
        description=_description(call) or "",
        words=word_weights(call.required("WordWeights")),
    )
    await _save(call, row)
    return {"RequestId": call.request_id, "VocabId": row.id}


@_unbound
async def get(call: PopCall) -> dict[str, object]:
    """GetAsrVocab: Id → Vocab, with its words."""
    row = await _wanted(call)
    return {
        "RequestId": call.request_id,
        "Vocab": {**_summary(row), "WordWeights": dict(row.words)},
    }


@_unbound
async def update(call: PopCall) -> dict[str, object]:
    """UpdateAsrVocab: Id, Name, WordWeights, Description; the words replace those of before."""
    row = await _wanted(call)
    description = _description(call)
    changed = msgspec.structs.replace(
        row,
        name=_named(call),
        description=row.description if description is None else description,
        words=word_weights(call.required("WordWeights")),
    )
    await _save(call, changed)
    return {"RequestId": call.request_id}


@_unbound
async def delete(call: PopCall) -> dict[str, object]:
    """DeleteAsrVocab: Id."""
    row = await _wanted(call)
    await call.store.delete_vocabulary(row.id)
    await _follow(call)
    return {"RequestId": call.request_id}


@_unbound
async def show(call: PopCall) -> dict[str, object]:
    """ListAsrVocab: PageNumber (from 1), PageSize → Page, without words."""
    number = max(integer(call.parameters, "PageNumber", 1), 1)
    size = min(max(integer(call.parameters, "PageSize", _PAGE_SIZE), 1), _MAX_PAGE_SIZE)
    rows = await call.store.vocabularies()
    shown = rows[(number - 1) * size : number * size]
    return {
        "RequestId": call.request_id,
        "Page": {
            "Content": [_summary(row) for row in shown],
            "TotalPages": -(-len(rows) // size),
            "TotalItems": len(rows),
            "PageNumber": number,
            "PageSize": size,
        },
    }


VOCABULARY_ACTIONS: Final[Mapping[str, Action]] = {
    "CreateAsrVocab": create,
    "GetAsrVocab": get,
    "UpdateAsrVocab": update,
    "DeleteAsrVocab": delete,
    "ListAsrVocab": show,
}


async def _wanted(call: PopCall) -> VocabularyRow:
    """The vocabulary that the call names."""
    vocabulary_id = call.required("Id")
    row = None
    if len(vocabulary_id) <= _MAX_ID_CHARS and vocabulary_id.isprintable():
        row = await call.store.vocabulary(vocabulary_id)
    if row is None:
        raise PopError("Vocab.NotFound", 404, "There is no vocabulary of this Id.")
    return row


async def _save(call: PopCall, row: VocabularyRow) -> None:
    await call.store.save_vocabulary(row)
    await _follow(call)


async def _follow(call: PopCall) -> None:
    """The caller's next task here has what was changed; other processes follow in a second."""
    # It is saved: what cannot be read now is read a little later.
    with contextlib.suppress(StorageError):
        await call.projects.reload()


def _named(call: PopCall) -> str:
    return _text("Name", call.required("Name"), MAX_NAME_CHARS)


def _description(call: PopCall) -> str | None:
    given = call.parameters.get("Description")
    return None if given is None else _text("Description", given, MAX_DESCRIPTION_CHARS)


def _text(name: str, value: str, max_chars: int) -> str:
    if len(value) > max_chars or not value.replace("\n", " ").isprintable():
        raise invalid(f"{name} must have at most {max_chars} printable characters.")
    return value


def _summary(row: VocabularyRow) -> dict[str, object]:
    written = msgspec.json.encode(row.words, order="sorted")
    return {
        "Id": row.id,
        "Name": row.name,
        "Description": row.description,
        "Md5": hashlib.md5(written, usedforsecurity=False).hexdigest(),
        "Size": len(written),
        "CreateTime": _time(row.created_at),
        "UpdateTime": _time(row.updated_at),
    }


def _time(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
