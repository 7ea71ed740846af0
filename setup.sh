#!/usr/bin/env bash
# Brings a machine to where DexLoop runs: system libraries (Debian and Ubuntu), then the Python environment in .venv.
# Safe to run again: what is there is left alone.
set -euo pipefail
cd "$(dirname "$0")"

# file that proves it is there -> Debian package
need=()
have_lib() { ldconfig -p 2>/dev/null | grep -q "$1" || /sbin/ldconfig -p 2>/dev/null | grep -q "$1"; }
have_lib libEGL.so.1 || need+=(libegl1)
have_lib libEGL_mesa.so.0 || need+=(libegl-mesa0)
compgen -G "/usr/lib/*/dri/swrast_dri.so" >/dev/null || compgen -G "/usr/lib/*/libgallium-*.so" >/dev/null || need+=(libgl1-mesa-dri)
have_lib libOpenGL.so.0 || need+=(libopengl0)
have_lib libGLX.so.0 || need+=(libglx0)
have_lib libgomp.so.1 || need+=(libgomp1)
have_lib libusb-1.0.so.0 || need+=(libusb-1.0-0)           # pyrealsense2
command -v ffmpeg >/dev/null || need+=(ffmpeg)              # its libraries are what torchcodec loads
command -v cc >/dev/null || need+=(gcc libc6-dev)           # evdev, which pynput needs, is built from source
command -v make >/dev/null || need+=(make)
[ -e /usr/include/linux/input.h ] || need+=(linux-libc-dev)
if [ ${#need[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "setup.sh: missing: ${need[*]} (Debian names). Install their like with your package manager, then run again." >&2
        exit 1
    fi
    sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    echo "Installing system packages: ${need[*]}"
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
fi

if ! command -v uv >/dev/null; then
    echo "setup.sh: uv is missing. Install it (pip install uv), then run again." >&2
    exit 1
fi
uv sync --quiet --inexact
