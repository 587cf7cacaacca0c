"""Who may enter, and as which project.

The rules: where APPTOKEN or REQUIRE_TOKEN is set, a token is required at every door but health,
and the appkey only names a project. APPTOKEN is such a token, and so is each one that was issued
and is neither expired nor revoked. Where only APPKEY is set, the appkey is the credential: that
one, or the appkey of a project. Where none is set, everybody may enter. In any case the appkey's
project must be enabled, and have something left of what it may use today.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from app.access import tokens
from app.access.snapshot import EMPTY, Snapshot
from app.access.tokens import TokenFacts, mask
from app.core.errors import AccessDenied, AppkeyMismatch, DailyQuotaUsed, UnknownAppkey
from app.core.project import DEFAULT_APPKEY, Project

MISSING_TOKEN: Final = "Missing authorization header; send the token as X-NLS-Token."
MISSING_APPKEY: Final = "Missing appkey; send it as the parameter appkey."


def nothing_used(appkey: str) -> tuple[int, int]:
    """For a server that keeps no record of what is used."""
    return 0, 0


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """The credentials that the owner has set (None, or empty, where one is not in use), and what
    the database says now. ``clock``: seconds since 1970. ``used``: what the project of this appkey
    has used today, in whole seconds of audio and in characters."""

    apptoken: str | None = field(repr=False)
    appkey: str | None = field(repr=False)
    require_token: bool = False
    projects: Callable[[], Snapshot] = field(default=lambda: EMPTY, repr=False)
    clock: Callable[[], float] = field(default=time.time, repr=False)
    used: Callable[[str], tuple[int, int]] = field(default=nothing_used, repr=False)

    @property
    def needs_token(self) -> bool:
        """Whether nobody may enter without a token."""
        return bool(self.apptoken) or self.require_token

    def check(self, token: str | None, appkey: str | None) -> Project:
        """Check what a request carries; an empty value counts as missing. Returns the project of
        the appkey.

        Raises:
            AccessDenied: missing or wrong. The text names the wrong value masked, in the words
                that the C++ SDK looks for (nls-protocol.md 1.2).
            AppkeyMismatch: the token is for another appkey.
            UnknownAppkey: its project, or the default one that stands for it, is switched off.
            DailyQuotaUsed: its project has used what it may in one day.
        """
        snapshot = self.projects()
        if self.needs_token:
            facts = self._enter(token, snapshot)
            if facts is not None and not facts.is_for(appkey):
                raise AppkeyMismatch
        elif self.appkey:
            self._check_appkey(appkey, snapshot)
        return self._project(appkey or DEFAULT_APPKEY, snapshot)

    def check_signed(self, appkey: str, key_appkey: str | None) -> Project:
        """Check the appkey of a call that is signed with an access key, which stands for a token.
        ``key_appkey``: the only one that the key is for; None: any.

        Raises:
            AppkeyMismatch, UnknownAppkey, DailyQuotaUsed: as :meth:`check`.
        """
        if key_appkey not in (None, appkey):
            raise AppkeyMismatch("The access key is not for this appkey!")
        return self._project(appkey, self.projects())

    def check_handshake(self, token: str | None, *, token_in_message: bool) -> None:
        """Check a WebSocket handshake, which carries no appkey (nls-protocol.md 1.2).

        A wrong token is refused at once. A missing one is let in where ``token_in_message`` says
        that a message may bring it; :meth:`check` then decides at each Start.

        Raises:
            AccessDenied: as :meth:`check`.
        """
        if token or not token_in_message:
            self.admits(token)

    def admits(self, token: str | None) -> None:
        """Check the token where there is no appkey to check, and nothing is used.

        Raises:
            AccessDenied: as :meth:`check`.
        """
        if self.needs_token:
            self._enter(token, self.projects())

    def _enter(self, token: str | None, snapshot: Snapshot) -> TokenFacts | None:
        """What an issued token says; None: it is the owner's."""
        if not token:
            raise AccessDenied(MISSING_TOKEN)
        if self.apptoken and _equal(token, self.apptoken):
            return None
        facts = tokens.read(token, snapshot.token_key)
        if facts is None or facts.token_id in snapshot.revoked:
            raise AccessDenied(f"The token '{mask(token)}' is invalid!")
        if facts.expires_at <= self.clock():
            raise AccessDenied(f"The token '{mask(token)}' has expired!")
        return facts

    def _check_appkey(self, appkey: str | None, snapshot: Snapshot) -> None:
        if not appkey:
            raise AccessDenied(MISSING_APPKEY)
        is_a_projects = appkey in snapshot.projects and appkey != DEFAULT_APPKEY
        if not is_a_projects and not _equal(appkey, self.appkey or ""):
            raise AccessDenied(f"The appkey '{mask(appkey)}' is invalid!")

    def _project(self, appkey: str, snapshot: Snapshot) -> Project:
        project = snapshot.project_of(appkey)
        if not project.enabled:
            raise UnknownAppkey
        self._check_quota(project)
        return project

    def _check_quota(self, project: Project) -> None:
        if not project.daily_audio_s and not project.daily_characters:
            return
        audio_s, characters = self.used(project.appkey)
        if 0 < project.daily_audio_s <= audio_s or 0 < project.daily_characters <= characters:
            raise DailyQuotaUsed


def _equal(given: str, expected: str) -> bool:
    """Compare in a time that does not tell how much of ``given`` is right. Lone surrogates, which
    JSON can carry, are compared like any other character."""
    return hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), expected.encode("utf-8", "surrogatepass")
    )
