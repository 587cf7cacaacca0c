"""Audio between what a client sends or wants and the samples of an engine.

A reading order. Samples: ``pcm.py``, ``resample.py``.

In: ``sniff.py`` says what a client's bytes are, and so by which of three ways they are decoded:

1. ``decode.py``: raw PCM and WAV (``wav.py``, ``wav_samples.py``), with numpy, in the API process.
   The interface of all decoders of streams is here, too.
2. ``streaming.py``: what is decoded as it arrives, in the decode process. Taken apart by our own
   readers (``mpeg_audio.py``, ``ogg.py``, ``ebml.py``, ``opus_frames.py``), so that only single
   packets get to FFmpeg (``packets.py``).
3. ``container.py``: files that are decoded when they are whole, with FFmpeg's own readers, under a
   budget (``budget.py``, ``ffmpeg_memory.py``), in the decode process.

The last two share ``ffmpeg_frames.py`` (what FFmpeg returns, checked) and ``damage.py`` (how much
of a stream may be broken). All mix what has several channels down, or hear one of them
(``channels.py``).

Then: ``gate.py`` (the near-field filter; ``levels.py`` and ``threshold.py`` explain it to its
owner), and in the engine worker ``vad.py`` and ``endpoint.py``.

Out: ``prosody.py`` (speed, pitch, volume), then ``encode.py`` with one encoder for each format
(``encode_mp3.py``, ``encode_aac.py``, ``encode_opus.py``, ``encode_flac.py`` on
``encode_packets.py``).
"""
