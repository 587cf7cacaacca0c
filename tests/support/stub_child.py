"""A supervised child for tests/unit/serving/test_children.py; its config says what it does."""

from __future__ import annotations

import os
import sys
import time

from app.serving.control import Control


def main() -> None:
    """Do what the config says."""
    control = Control(int(sys.argv[1]))
    config = control.read_config()
    print("a line without a record", flush=True)
    match config["does"]:
        case "serve":
            control.watch()
            control.ready(pid=os.getpid(), config=config)
            time.sleep(3600)
        case "refuse":
            control.fatal("no weights: run funspeech models pull")
            sys.exit(3)
        case "crash":
            sys.exit(1)
        case "hang":
            time.sleep(3600)


if __name__ == "__main__":
    main()
