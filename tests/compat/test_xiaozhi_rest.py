"""What xiaozhi-esp32-server's providers ``aliyun`` send and rely on: TTS by REST (nls-protocol.md
6.2, 10), and ASR by REST as its older versions have it (6.1), which is Alibaba's own sample. Both
by ``https`` with the certificate verified, which is ``funspeech cert``'s."""

from __future__ import annotations

import asyncio
import base64
import hmac
import http.client
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid1

import httpx
import pytest

from app.access.rows import KeyRow
from app.access.store import open_store
from app.core.config import Config
from tests.support.decoded import decoded
from tests.support.lan_certificate import LanCertificate, lan_certificate
from tests.support.process import Served, serving
from tests.support.sound import joined, silence, tone


@dataclass
class Site:
    """A server that wants a token, and an access key of it."""

    served: Served
    certificate: LanCertificate
    key: KeyRow
    token: str


@asynccontextmanager
async def a_site(folder: Path) -> AsyncIterator[Site]:
    certificate = await lan_certificate(folder / "pair")
    async with (
        serving(folder, REQUIRE_TOKEN="true", **certificate.settings) as served,
        open_store(Config.model_validate({"data_dir": folder / "data"})) as store,
    ):
        assert served.http.startswith("https://127.0.0.1:")
        token, _ = await store.create_token(seconds=60)
        yield Site(served, certificate, await store.create_key(), token)


# TTS


class NoAudio(Exception):
    """The answer is something else."""


@dataclass
class Speaker:
    """The provider ``aliyun`` for TTS."""

    site: Site
    token: str
    format: str = "wav"
    renewed: int = 0

    async def text_to_speak(self, text: str = "你好。", **other: Any) -> bytes:
        """The audio, with a token that was renewed if it was refused with 401.

        Raises:
            NoAudio: with the answer's body.
        """
        trusting = self.site.certificate.trusting()
        async with httpx.AsyncClient(base_url=self.site.served.http, verify=trusting) as http:
            answer = await self._post(http, text, other)
            if answer.status_code == 401:
                self.token = await self._created_token(http)
                self.renewed += 1
                answer = await self._post(http, text, other)
        if not answer.headers["Content-Type"].startswith("audio/"):
            raise NoAudio(answer.text)
        return answer.content

    async def _post(
        self, http: httpx.AsyncClient, text: str, other: dict[str, Any]
    ) -> httpx.Response:
        fields = {
            "appkey": "demo-appkey",
            "token": self.token,
            "text": text,
            "format": self.format,
            "sample_rate": 16_000,
            "voice": "xiaoyun",
            "volume": 50,
            "speech_rate": 0,
            "pitch_rate": 0,
            **other,
        }
        headers = {"Content-Type": "application/json"}
        return await http.post("/stream/v1/tts", content=json.dumps(fields), headers=headers)

    async def _created_token(self, http: httpx.AsyncClient) -> str:
        """Signed in its own way: the signature is the first parameter."""
        parameters = {
            "AccessKeyId": self.site.key.id,
            "Action": "CreateToken",
            "Format": "JSON",
            "RegionId": "cn-shanghai",
            "SignatureMethod": "HMAC-SHA1",
            "SignatureNonce": str(uuid1()),
            "SignatureVersion": "1.0",
            "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "Version": "2019-02-28",
        }
        query = urlencode(sorted(parameters.items()), quote_via=quote, safe="~")
        signed = f"GET&%2F&{quote(query, safe='~')}".encode()
        made = hmac.digest(f"{self.site.key.secret}&".encode(), signed, "sha1")
        signature = quote(base64.b64encode(made), safe="~")
        answer = await http.get(f"/?Signature={signature}&{query}")
        assert answer.is_success, answer.text
        token = answer.json()["Token"]
        assert str(token["ExpireTime"]).isdigit()
        return str(token["Id"])


async def test_it_speaks(tmp_path: Path) -> None:
    """A short text and one whose audio is sent while it is made; with a token of the owner's."""
    async with a_site(tmp_path) as site:
        for name in ("wav", "mp3", "pcm"):
            speaker = Speaker(site, site.token, name)
            for text in ("你好，世界。", "今天天气很好。" * 50):
                audio = await speaker.text_to_speak(text)
                if name == "wav":
                    assert audio.startswith(b"RIFF")
                    assert len(audio) == 44 + 2 * 16_000 * len(text) // 5
                else:
                    samples, rate = decoded(name, audio, 16_000)
                    seconds = len(samples) / rate
                    assert 0 <= seconds - len(text) / 5 < (0.25 if name == "mp3" else 1e-9)
            assert speaker.renewed == 0
        async with httpx.AsyncClient(base_url=site.served.http) as stranger:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await stranger.get("/health")


async def test_it_renews_its_token_when_that_is_refused_and_only_then(tmp_path: Path) -> None:
    """That is at 401."""
    async with a_site(tmp_path) as site:
        speaker = Speaker(site, "0" * 64)
        for token, renewed in (("0" * 64, 1), (None, 1), ("", 2)):
            if token is not None:
                speaker.token = token
            assert len(await speaker.text_to_speak()) == 44 + 3 * 6_400
            assert speaker.renewed == renewed
        for wrong in ({"text": ""}, {"voice": "nobody"}, {"format": "midi"}, {"volume": "loud"}):
            with pytest.raises(NoAudio, match='"status":4'):
                await speaker.text_to_speak(**wrong)
        assert speaker.renewed == 2


# ASR


def recognised(
    served: Served, trusting: ssl.SSLContext, token: str, pcm: bytes
) -> tuple[int, dict[str, Any]]:
    """HTTP status and answer. The URL is whole in the request's first line; the audio has no
    header, whatever it is called."""
    url = (
        f"{served.http}/stream/v1/asr?appkey=demo-appkey&format=wav&sample_rate=16000"
        "&enable_punctuation_prediction=true&enable_inverse_text_normalization=true"
        "&enable_voice_detection=false"
    )
    headers = {
        "X-NLS-Token": token,
        "Content-type": "application/octet-stream",
        "Content-Length": str(len(pcm)),
    }
    connection = http.client.HTTPSConnection(served.host, served.port, timeout=30, context=trusting)
    try:
        connection.request("POST", url, pcm, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


async def test_it_hears(tmp_path: Path) -> None:
    pcm = joined(silence(180), tone(900), silence(400)).tobytes()
    async with a_site(tmp_path) as site:
        trusting = site.certificate.trusting()
        for token, http_status, status, result in (
            (site.token, 200, 20000000, "heard 900 ms"),
            ("wrong-token-0123", 401, 40000001, ""),
        ):
            got, body = await asyncio.to_thread(recognised, site.served, trusting, token, pcm)
            assert (got, body["status"], body["result"]) == (http_status, status, result)
