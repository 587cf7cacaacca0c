"""The signatures of Alibaba's open API ("POP"), and the shapes of its answers, without I/O
(nls-protocol.md 7).

Two styles: RPC, whose parameters are in the query and the form and are all signed, and the older
ROA of Java's AccessToken, which signs some headers and the path.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote as percent_encoded

CLOCK_SKEW_S: Final = 15 * 60
"""How far a request's time may be from ours, either way."""

_MAX_PARAMETER_CHARS: Final = 128
"""Of an access key's id and of a nonce."""

_MAX_NONCES: Final = 100_000
"""That are remembered, each for half an hour: more than fifty signed requests a second."""

_MAX_SHOWN_CHARS: Final = 8_000
"""Of what was to be signed, in the answer to a wrong signature: CreateToken's has 400."""

_NO_SECRET: Final = "no access key has this id, and nobody may know from the time it takes"

_SIGNATURE_METHOD: Final = "HMAC-SHA1"
_TIMESTAMP: Final = "%Y-%m-%dT%H:%M:%SZ"
_ROA_AUTHORIZATION: Final = re.compile(r"acs ([^:\s]+):(\S+)", re.ASCII)


class PopError(Exception):
    """A refusal: ``code`` and ``text`` for its body, with the HTTP status that it goes with. The
    text is safe to show."""

    def __init__(self, code: str, http_status: int, text: str) -> None:
        super().__init__(code)
        self.code = code
        self.http_status = http_status
        self.text = text


def missing(name: str) -> PopError:
    """The parameter ``name`` is required and not there."""
    text = f'The input parameter "{name}" that is mandatory for processing this request is missing.'
    return PopError("MissingParameter", 400, text)


def invalid(text: str) -> PopError:
    """A parameter makes no sense; ``text`` says what is expected."""
    return PopError("InvalidParameter", 400, text)


def unknown_key() -> PopError:
    """There is no such access key, or it is revoked."""
    return PopError("InvalidAccessKeyId.NotFound", 404, "Specified access key is not found.")


def unknown_action() -> PopError:
    """This server has no such action."""
    return PopError(
        "InvalidAction.NotFound", 404, "Specified api is not found, please check your action."
    )


# RPC


def merged(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The parameters of query and form together.

    Raises:
        PopError: one is there twice, with different values.
    """
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if parameters.setdefault(name, value) != value:
            raise invalid("A parameter is there twice, with different values.")
    return parameters


def canonical(parameters: Mapping[str, str]) -> str:
    """All parameters but the signature, in the one way to write them (nls-protocol.md 7.2)."""
    signed = [(name, value) for name, value in parameters.items() if name != "Signature"]
    signed.sort(key=lambda pair: pair[0].encode())
    return "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in signed)


def rpc_string(method: str, parameters: Mapping[str, str]) -> str:
    """What is signed of a request. The path is always ``/``, wherever it was sent."""
    return f"{method}&%2F&{_encoded(canonical(parameters))}"


def sign_rpc(method: str, parameters: Mapping[str, str], secret: str) -> str:
    """The signature of a request."""
    return _signature(f"{secret}&", rpc_string(method, parameters))


@dataclass(frozen=True, slots=True)
class RpcRequest:
    """A request in the RPC style, whose parameters are complete; see :func:`read_rpc`."""

    method: str
    parameters: Mapping[str, str]

    @property
    def key_id(self) -> str:
        """The access key that it says it is signed with."""
        return self.parameters["AccessKeyId"]

    def verify(self, secret: str | None) -> None:
        """Check the signature. ``secret``: None where there is no such key, which takes as long.

        Raises:
            PopError: there is no such key, or its secret makes another signature.
        """
        signed = rpc_string(self.method, self.parameters)
        # A "+" that was not percent-encoded is read as a space, which base64 does not have.
        given = self.parameters["Signature"].replace(" ", "+")
        _compare(given, f"{secret or _NO_SECRET}&", signed, known=secret is not None)


def read_rpc(method: str, parameters: Mapping[str, str], now: float) -> RpcRequest:
    """A request as far as it can be checked without the key. ``now``: seconds since 1970.

    Raises:
        PopError: a parameter is missing or makes no sense, or it is too old.
    """
    for name in ("AccessKeyId", "Signature", "SignatureNonce", "Timestamp"):
        if not parameters.get(name):
            raise missing(name)
    if parameters.get("SignatureMethod", _SIGNATURE_METHOD).upper() != _SIGNATURE_METHOD:
        raise invalid(f"SignatureMethod must be {_SIGNATURE_METHOD}.")
    for name in ("AccessKeyId", "SignatureNonce"):
        if len(parameters[name]) > _MAX_PARAMETER_CHARS:
            raise invalid(f"{name} is too long.")
    try:
        sent = datetime.strptime(parameters["Timestamp"], _TIMESTAMP).replace(tzinfo=UTC)
    except ValueError:
        raise PopError(
            "InvalidTimeStamp.Format", 400, "Timestamp must be like 2019-03-25T09:07:52Z, in UTC."
        ) from None
    _check_time(sent, now)
    return RpcRequest(method, parameters)


@dataclass(slots=True)
class Nonces:
    """The nonces of the requests of the last half hour: older ones are refused for their time.
    ``limit``: of those that are remembered."""

    limit: int = _MAX_NONCES
    _until: dict[tuple[str, str], float] = field(default_factory=dict)  # in the order of adding

    def use(self, request: RpcRequest, now: float) -> None:
        """Remember a request whose signature was good, so that it serves once.

        Raises:
            PopError: it has been here, or there are too many to remember.
        """
        self._forget_old(now)
        used = (request.key_id, request.parameters["SignatureNonce"])
        if used in self._until:
            raise PopError("SignatureNonceUsed", 400, "Specified signature nonce was used already.")
        if len(self._until) >= self.limit:
            raise PopError("Throttling", 429, "Too many requests; try again later.")
        self._until[used] = now + 2 * CLOCK_SKEW_S

    def _forget_old(self, now: float) -> None:
        while self._until and self._until[first := next(iter(self._until))] < now:
            del self._until[first]


# ROA


@dataclass(frozen=True, slots=True)
class RoaRequest:
    """A request in the ROA style; see :func:`read_roa`. ``signed``: what of it is."""

    key_id: str
    signature: str
    signed: str

    def verify(self, secret: str | None) -> None:
        """As :meth:`RpcRequest.verify`. Raises PopError."""
        _compare(self.signature, secret or _NO_SECRET, self.signed, known=secret is not None)


def roa_string(method: str, headers: Mapping[str, str], path: str) -> str:
    """What is signed (nls-protocol.md 7.1). ``headers``: names in lower case."""
    names = ("accept", "content-md5", "content-type", "date")
    return "\n".join([method, *(headers.get(name, "") for name in names), path])


def sign_roa(method: str, headers: Mapping[str, str], path: str, secret: str) -> str:
    """The signature of a request."""
    return _signature(secret, roa_string(method, headers, path))


def is_roa(headers: Mapping[str, str]) -> bool:
    """Whether a request is signed in the ROA style."""
    return headers.get("authorization", "").startswith("acs ")


def read_roa(method: str, headers: Mapping[str, str], path: str, now: float) -> RoaRequest:
    """A request as far as it can be checked without the key. It has no nonce: it serves for as long
    as its date does. ``now``: seconds since 1970.

    Raises:
        PopError: a header is missing or makes no sense, or it is too old.
    """
    found = _ROA_AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if found is None or len(found[1]) > _MAX_PARAMETER_CHARS:
        raise missing("Authorization")
    if not headers.get("date"):
        raise missing("Date")
    try:
        sent = parsedate_to_datetime(headers["date"])
        # Without a zone it is UTC: the format knows no other.
        _check_time(sent if sent.tzinfo else sent.replace(tzinfo=UTC), now)
    except (ValueError, OverflowError):
        raise PopError("InvalidTimeStamp.Format", 400, "Date must be as in RFC 1123.") from None
    return RoaRequest(found[1], found[2], roa_string(method, headers, path))


# Answers


def token_answer(request_id: str, token: str, expires_at: int, user_id: str) -> dict[str, object]:
    """The answer to CreateToken (nls-protocol.md 7.1). ``expires_at``: seconds since 1970."""
    return {
        "NlsRequestId": request_id.replace("-", "").lower(),
        "RequestId": request_id,
        "ErrMsg": "",
        "Token": {"ExpireTime": expires_at, "Id": token, "UserId": user_id},
    }


def error_answer(request_id: str, error: PopError) -> dict[str, object]:
    """The body of a refusal."""
    return {
        "RequestId": request_id,
        "HostId": "funspeech",
        "Code": error.code,
        "Message": error.text,
    }


def _encoded(text: str) -> str:
    return percent_encoded(text, safe="~")


def _signature(key: str, signed: str) -> str:
    # SHA-1 is what the interface has; as an HMAC it is not broken.
    return base64.b64encode(hmac.digest(key.encode(), signed.encode(), "sha1")).decode()


def _compare(given: str, key: str, signed: str, *, known: bool) -> None:
    right = hmac.compare_digest(given.encode(), _signature(key, signed).encode())
    if not known:
        raise unknown_key()
    if not right:
        text = "Specified signature is not matched with our calculation."
        if len(signed) <= _MAX_SHOWN_CHARS:
            # The cloud's words: its SDKs compare the rest with what they have signed, and tell a
            # wrong secret from a wrong signature. It is nothing but the request itself.
            text += f" server string to sign is:{signed}"
        raise PopError("SignatureDoesNotMatch", 400, text)


def _check_time(sent: datetime, now: float) -> None:
    if abs(sent.timestamp() - now) > CLOCK_SKEW_S:
        raise PopError(
            "InvalidTimeStamp.Expired",
            400,
            "Specified time stamp or date value is expired: check the clock.",
        )
