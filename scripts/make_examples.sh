#!/usr/bin/env bash
# Speak the example audio anew with flite (Debian package "flite"); usage: scripts/make_examples.sh
#
# 16 kHz, 16 bit, mono. The sentences and voices are ones that the embedded recogniser gets right
# wherever the sentence is cut, fed whole or in pieces; others of flite's it does not.
set -euo pipefail
cd "$(dirname "$0")/../examples"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

speak() { # name voice text
    flite -voice "$2" -t "$3" -o "$work/$1.wav"
}

speak hello rms "hello world"
speak music rms "play some music in the living room"
speak station slt "where is the train station"

# join TARGET NAME…: the spoken texts with 1.5 s of silence between them.
join() {
    python3 - "$work" "$@" <<'PYTHON'
import sys
import wave

work, target, *names = sys.argv[1:]


def read(name):
    with wave.open(f"{work}/{name}.wav") as source:
        kind = (source.getframerate(), source.getsampwidth(), source.getnchannels())
        if kind != (16000, 2, 1):
            sys.exit(f"flite gave {kind} and not 16 kHz, 16 bit, mono")
        return source.readframes(source.getnframes())


def silence(seconds):
    return bytes(2 * int(16000 * seconds))


with wave.open(target, "wb") as out:
    out.setparams((1, 2, 16000, 0, "NONE", ""))
    out.writeframes(silence(0.3) + silence(1.5).join(map(read, names)) + silence(0.5))
PYTHON
}

join hello.wav hello
join music.wav music
join three_sentences.wav music station hello

echo "hello world" >hello.txt
echo "play some music in the living room" >music.txt
printf '%s\n' "play some music in the living room" "where is the train station" "hello world" \
    >three_sentences.txt
ls -l
