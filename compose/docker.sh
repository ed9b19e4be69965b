# shellcheck shell=bash
# Sourced by what builds and runs images: finds programs of Docker that can do it, on machines that have several.

# The client that can build with BuildKit (one of Docker 23 or newer can't without its buildx), as $docker.
find_docker() {
  local candidate version
  export DOCKER_BUILDKIT=1
  while read -r candidate; do
    version=$("$candidate" --version | sed -E 's/[^0-9]*([0-9]+).*/\1/')
    if [ "$version" -lt 23 ] || "$candidate" buildx version >/dev/null 2>&1; then
      docker=$candidate
      return 0
    fi
  done < <(type -ap docker)
  echo 'building images needs Docker: a client with buildx (or one older than 23) on PATH' >&2
  return 1
}

# Fails with one sentence unless a daemon answers.
need_daemon() {
  if ! "$docker" version --format '{{.Server.Version}}' >/dev/null 2>&1; then
    echo "no Docker daemon answers at ${DOCKER_HOST:-unix:///var/run/docker.sock} (Debian, Ubuntu: apt install docker.io)" >&2
    return 1
  fi
}

# Docker Compose as the array $compose: Docker's own plugin, else the one of the development tools.
find_compose() {
  local root
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  if "$docker" compose version >/dev/null 2>&1; then
    compose=("$docker" compose)
  elif command -v docker-compose >/dev/null && docker-compose version --short 2>/dev/null | grep -Eq '^v?([2-9]|[1-9][0-9])\.'; then
    compose=(docker-compose)
  elif [ -x "$root/.venv/bin/docker-compose" ]; then
    compose=("$root/.venv/bin/docker-compose")
  else
    echo 'this needs Docker Compose 2 or newer: Docker'"'"'s compose plugin, or `make install`' >&2
    return 1
  fi
}
