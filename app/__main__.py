"""``python -m app`` is ``funspeech``."""

from app.cli import main

if __name__ == "__main__":
    main()
