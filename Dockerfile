# FunSpeech for CPUs: the engines "embedded", for trying out, and "sherpa", for Chinese and English.
# Dockerfile.funasr makes the image for FunASR's models and NVIDIA cards.
#
#   docker build -t funspeech .
#   docker build --target with-models -t funspeech:chinese .
#
# The first line makes an image without models: "funspeech models pull" puts them into the volume
# /home/funspeech/.cache/modelscope. The second line, on a machine with internet, puts the models
# that MODELS names into the image, for machines that never see it: docs/models.md, Without internet.
#
# The image contains espeak-ng (GPL-3.0-or-later, from the package espeakng-loader): whoever passes
# the image on must pass on its licence and offer its source, see README.md. So it is with the
# models' licences, which "funspeech models list --json" names.
FROM python:3.11-slim AS server

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

RUN useradd --uid 1000 --create-home funspeech \
    && mkdir -p /app/data /app/logs /app/voices /home/funspeech/.cache/modelscope \
    && chown -R funspeech:funspeech /app /home/funspeech/.cache

WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY app ./app
RUN pip install -c constraints.txt '.[embedded,sherpa]' && rm -rf /build/*

# data/, logs/, voices/ and .env are looked for in the working directory.
WORKDIR /app
USER funspeech
VOLUME ["/app/data", "/app/logs", "/app/voices"]
EXPOSE 8000

# Alive, over https where the server has a certificate, which is not for 127.0.0.1.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, ssl, urllib.request as r; e = os.environ.get; r.urlopen('http%s://127.0.0.1:%s/health/live' % ('s' if e('SSL_CERTFILE') else '', e('PORT') or 8000), timeout=4, context=ssl._create_unverified_context())"]

CMD ["funspeech", "serve"]

# The models in a folder that is no volume and that belongs to root: the server only reads them.
FROM server AS with-models
ARG MODELS="zh-small sensevoice-int8 punctuation-int8 voice-zh-en"
# Where to download from, as the setting of this name says.
ARG SHERPA_MIRRORS=
ENV MODELSCOPE_CACHE=/opt/models
USER root
RUN funspeech models pull ${MODELS} && chmod -R u=rwX,go=rX /opt/models
USER funspeech
ENV OFFLINE=true

# What is built where no target is named.
FROM server
VOLUME ["/home/funspeech/.cache/modelscope"]
