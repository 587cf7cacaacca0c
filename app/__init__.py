"""FunSpeech: a self-hosted speech server that speaks Alibaba Cloud's NLS protocol."""

__version__ = "0.1.0"
