# FunSpeech for trying out, with the engines that come with pip ("embedded"): no Chinese recognition.
# Dockerfile.funasr makes the image that has it.
#
#   docker build -t funspeech .
#
# The image contains espeak-ng (GPL-3.0-or-later, from the package espeakng-loader): whoever passes
# the image on must pass on its licence and offer its source, see README.md.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

RUN useradd --uid 1000 --create-home funspeech \
    && mkdir -p /app/data /app/logs /app/voices \
    && chown -R funspeech:funspeech /app

WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY app ./app
RUN pip install -c constraints.txt '.[embedded]' && rm -rf /build/*

# data/, logs/, voices/ and .env are looked for in the working directory.
WORKDIR /app
USER funspeech
VOLUME ["/app/data", "/app/logs", "/app/voices"]
EXPOSE 8000

# Alive, over https where the server has a certificate, which is not for 127.0.0.1.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, ssl, urllib.request as r; e = os.environ.get; r.urlopen('http%s://127.0.0.1:%s/health/live' % ('s' if e('SSL_CERTFILE') else '', e('PORT') or 8000), timeout=4, context=ssl._create_unverified_context())"]

CMD ["funspeech", "serve"]
