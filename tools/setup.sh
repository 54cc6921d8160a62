#!/usr/bin/env bash
# Bring a bare Debian or Ubuntu to where tinypeft's tests and demo run. Safe to run again; does nothing when nothing is
# missing. Usage: tools/setup.sh [VENV]; with TINYPEFT_BROWSER=1 it installs a browser for the tests that open pages.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
stamp=$venv/.tinypeft-setup

# package: a file or program that tells whether it is installed
missing=()
while read -r package probe; do
  case $probe in
    /*) [ -e "$probe" ] || missing+=("$package") ;;
    *) command -v "$probe" >/dev/null || missing+=("$package") ;;
  esac
done <<'END'
gcc-arm-none-eabi arm-none-eabi-gcc
libnewlib-arm-none-eabi /usr/lib/arm-none-eabi/newlib/libc_nano.a
qemu-system-arm qemu-system-arm
clang clang
gcc gcc
make make
cmake cmake
END

browsers=(chromium chromium-browser google-chrome google-chrome-stable)
if [ -n "${TINYPEFT_BROWSER:-}" ] && ! command -v "${browsers[@]}" >/dev/null; then
  missing+=(chromium)
fi

python=python3
for candidate in python3 python3.11 python3.12 python3.13; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ ! -x "$venv/bin/python" ] && ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  missing+=(python3-venv)
fi

install_packages() {
  local sudo=()
  [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  echo "installing $*"
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null; then
    echo "error: missing ${missing[*]}, and there is no apt-get" >&2
    echo "try: install them with this system's package manager, then run make setup again" >&2
    exit 1
  fi
  install_packages "${missing[@]}"
fi

# In some releases clang brings the runtime of its fuzzer, in others that is a package of the same version.
if ! compgen -G "$(clang -print-resource-dir)/lib/*/libclang_rt.fuzzer*.a" >/dev/null; then
  runtime=libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev
  if command -v apt-cache >/dev/null && apt-cache show "$runtime" >/dev/null 2>&1; then
    install_packages "$runtime"
  else
    echo "note: this clang cannot fuzz, and there is no package $runtime: make fuzz-firmware will not run"
  fi
fi

if [ ! -x "$venv/bin/python" ]; then
  if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: tinypeft needs Python 3.11 or later, $python is $("$python" --version)" >&2
    echo "try: install a newer Python, then run make setup again" >&2
    exit 1
  fi
  "$python" -m venv "$venv" || { rm -rf "$venv"; exit 1; }
fi

# The stamp holds what was installed from, so that a change of pyproject.toml, and only that, installs again.
want=$(cat pyproject.toml; pwd)
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$want" ]; then
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev]'
  printf '%s\n' "$want" >"$stamp"
fi
