"""What can go wrong on the client's side, as one small tree.

ClientError                  its text is one line for a person
├── ServerUnreachable        nothing answered at the address
│   └── CertificateRefused   what answered has a TLS certificate that is not trusted
├── AccessRefused            the server wants another token
├── RequestRefused           the server answered, but not with what was asked for
├── ConnectionLost           the connection ended before the task did
├── AnswerTimeout            the server is there but did not answer in time
├── ProtocolViolation        the server sent what NLS does not allow
└── NlsTaskFailed            the server failed the task, with its NLS code and text
"""

from __future__ import annotations


class ClientError(Exception):
    """Base of all errors of ``app.client``."""


class ServerUnreachable(ClientError):
    """No connection could be made: nobody listens there, or the name does not resolve."""


class CertificateRefused(ServerUnreachable):
    """The server's TLS certificate is not trusted: self-signed, expired, or for another name."""


class AccessRefused(ClientError):
    """The token is missing or wrong."""


class RequestRefused(ClientError):
    """The answer is an HTTP error or not the kind of content that was asked for.

    ``status`` is the HTTP status.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class ConnectionLost(ClientError):
    """The connection ended in the middle of a task.

    ``code`` is the WebSocket close code, 1006 if there was no close frame.
    """

    def __init__(self, text: str, code: int = 1006) -> None:
        super().__init__(text)
        self.code = code


class AnswerTimeout(ClientError):
    """The server did not send what it had to send in time."""


class ProtocolViolation(ClientError):
    """A message of the server does not follow the protocol."""


class NlsTaskFailed(ClientError):
    """TaskFailed, or an error answer of a REST call.

    ``code`` is the NLS status (nls-protocol.md 8.1), ``text`` the server's explanation.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text or 'the task failed'} ({code})")
        self.code = code
        self.text = text
