# Lockstep's two images: `web` (labeler, coordinator, migration; no torch) and `trainer` (both trainers).
#
#   docker build --target web -t lockstep-web .
#   docker build --target trainer -t lockstep-trainer .                  torch as plain pip brings it: on Linux
#                                                                        with an x86-64 processor, the CUDA build
#   docker build --target trainer --build-arg TORCH_INDEX=ADDRESS ...    torch from another index: ADDRESS of
#                                                                        the CPU builds is on pytorch.org's
#                                                                        installation page; a gigabyte or more
#                                                                        smaller
#
# What changes seldom comes first. The code is the last layer of both, so a change of code rebuilds in seconds.

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
# /data is where the trainers' TensorBoard files go, and the labeler's archives on their way out and in; a named
# volume takes its owner from here.
RUN groupadd --gid 10001 lockstep \
 && useradd --uid 10001 --gid lockstep --no-create-home --home-dir /tmp lockstep \
 && mkdir -p /app /data && chown lockstep:lockstep /data
WORKDIR /app
# The command itself is two lines, and belongs below the code.
RUN printf '#!/usr/bin/env python3\nfrom services.cli import main\nmain()\n' >/usr/local/bin/lockstep \
 && chmod 755 /usr/local/bin/lockstep

# Only what is to be installed is read from pyproject.toml, so that another line in it keeps these layers.
FROM base AS requirements
COPY pyproject.toml ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
w = lambda name, lines: open(f'/{name}.txt', 'w').write('\n'.join(lines) + '\n'); \
t = p['optional-dependencies']['trainer']; \
[w(n, p['optional-dependencies'][n]) for n in ('trackio', 'wandb')]; \
w('web', p['dependencies'] + p['optional-dependencies']['data']); w('torch', [l for l in t if l.startswith('torch==')]); w('trainer', t)"

FROM base AS web-packages
COPY constraints.txt /requirements/
COPY --from=requirements /web.txt /requirements/
RUN pip install -c /requirements/constraints.txt -r /requirements/web.txt

FROM web-packages AS trainer-packages
ARG TORCH_INDEX=""
COPY --from=requirements /torch.txt /trainer.txt /requirements/
# Torch alone comes from the other index; the second line then finds it there, and brings what it needs.
RUN if [ -n "$TORCH_INDEX" ]; then pip install --no-deps --index-url "$TORCH_INDEX" -r /requirements/torch.txt; fi \
 && pip install -c /requirements/constraints.txt -r /requirements/torch.txt
RUN pip install -c /requirements/constraints.txt -r /requirements/trainer.txt
# trackio or wandb, if LOCKSTEP_TRACKER is to be one of them.
ARG TRACKER=""
COPY --from=requirements /trackio.txt /wandb.txt /requirements/
RUN case "$TRACKER" in trackio|wandb) pip install -r "/requirements/$TRACKER.txt" ;; esac

FROM web-packages AS web
COPY shared shared
COPY services services
COPY configs configs
RUN python -m compileall -q shared services
ARG REVISION=""
ENV PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 HOME=/tmp LOCKSTEP_DATA_DIR=/data LOCKSTEP_REVISION=$REVISION
USER 10001:10001
EXPOSE 8000
CMD ["python", "-m", "services.labeler"]

FROM trainer-packages AS trainer
COPY shared shared
COPY services services
COPY configs configs
RUN python -m compileall -q shared services
ARG REVISION=""
ENV PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 HOME=/tmp LOCKSTEP_DATA_DIR=/data LOCKSTEP_REVISION=$REVISION
USER 10001:10001
CMD ["python", "-m", "services.agent_trainer.worker"]
