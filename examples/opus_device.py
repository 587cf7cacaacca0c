"""A device that sends bare Opus packets, one per WebSocket message, as xiaozhi's do: 16 kHz, 60 ms
each. Needs the packages av and websockets, which the server needs too.

    python examples/opus_device.py examples/three_sentences.wav ws://127.0.0.1:8000/ws/v1
"""

import asyncio
import json
import sys
import uuid
from collections.abc import Iterator

import av
from websockets.asyncio.client import connect

PACKET_MS = 60


def opus_packets(path: str) -> Iterator[bytes]:
    """Stands for the device's microphone and encoder."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 16_000, "mono", "s16"
    encoder.options = {"frame_duration": str(PACKET_MS), "application": "voip"}
    size = 16 * PACKET_MS
    resampler = av.AudioResampler("s16", "mono", 16_000, frame_size=size)
    with av.open(path) as file:
        for decoded in [*file.decode(audio=0), None]:
            for frame in resampler.resample(decoded):
                yield from map(bytes, encoder.encode(frame))
    yield from map(bytes, encoder.encode(None))


async def main(path: str, url: str) -> None:
    task_id = uuid.uuid4().hex

    def message(name: str, payload: dict[str, object]) -> str:
        header = {
            "namespace": "SpeechTranscriber",
            "name": name,
            "appkey": "default",
            "task_id": task_id,
            "message_id": uuid.uuid4().hex,
        }
        return json.dumps({"header": header, "payload": payload})

    async with connect(url) as socket:
        await socket.send(message("StartTranscription", {"format": "opus", "sample_rate": 16_000}))
        await socket.recv()  # TranscriptionStarted

        async def speak() -> None:
            for packet in opus_packets(path):
                await socket.send(packet)
                await asyncio.sleep(PACKET_MS / 1000)
            await socket.send(message("StopTranscription", {}))

        speaking = asyncio.create_task(speak())
        async for text in socket:
            event = json.loads(text)
            name = event["header"]["name"]
            if name == "SentenceEnd":
                print(event["payload"]["result"])
            elif name == "TaskFailed":
                sys.exit(event["header"]["status_text"])
            elif name == "TranscriptionCompleted":
                break
        await speaking


asyncio.run(main(*sys.argv[1:3]))
