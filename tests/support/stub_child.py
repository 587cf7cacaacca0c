"""A supervised child for the unit tests of app/serving; its config says what it does."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import threading
import time
from pathlib import Path

from app.serving.control import Control, Work

BEAT_S = 0.05


def main() -> None:
    """Do what the config says."""
    control = Control(int(sys.argv[1]), BEAT_S)
    config = control.read_config()
    print("a line without a record", flush=True)
    match config["does"]:
        case "serve":
            control.watch()
            control.ready(pid=os.getpid(), config=config)
            time.sleep(3600)
        case "serve and keep":
            control.watch()
            control.ready(pid=os.getpid(), config=config, keep={"kept": config.get("kept", 0) + 1})
            time.sleep(3600)
        case "refuse":
            control.fatal("no weights: run funspeech models pull")
            sys.exit(3)
        case "vanish":  # as a native library does that finds no way to go on
            control.progress("loading zipformer")
            os.write(2, b"model.cc:115 no T in the \x1b[31mmetadata\n\n")
            os.write(2, b'{"event": "a record"}\n')
            os._exit(255)
        case "serve and vanish":
            control.progress("loading zipformer")
            control.ready(pid=os.getpid())
            os.write(2, "you said 你好\n".encode())
            os._exit(255)
        case "crash":
            sys.exit(1)
        case "hang":
            time.sleep(3600)
        case "serve and crash":
            control.ready(pid=os.getpid())
            sys.exit(1)
        case "stop":  # after its first beats
            control.watch()
            control.ready(pid=os.getpid())
            time.sleep(5 * BEAT_S)
            os.kill(os.getpid(), signal.SIGSTOP)
        case does:
            if does == "need a file" and not Path(config["file"]).exists():
                control.fatal("no weights: run funspeech models pull")
                sys.exit(3)
            control.watch()
            asyncio.run(_in_loop(does, control))


async def _in_loop(does: str, control: Control) -> None:
    loop = asyncio.get_running_loop()
    reloaded = itertools.count(1)
    steps = itertools.count()

    def work() -> Work:
        match does:
            case "advance":
                return {"step": next(steps)}
            case "get stuck":  # one operation, while another advances
                return {"step": next(steps), "stuck": 7}
        return {}

    def drain(wait_s: float) -> None:
        if does != "ignore a drain":
            print(f"drains for {wait_s:g} s", flush=True)
            os._exit(0)

    control.follow(
        loop,
        work=work,
        reload=lambda: control.ready(pid=os.getpid(), reloads=next(reloaded)),
        drain=drain,
    )
    control.ready(pid=os.getpid())
    if does == "block the loop":
        threading.Event().wait()
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
