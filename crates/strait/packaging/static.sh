#!/usr/bin/env bash
# Builds the release binary for x86_64-unknown-linux-musl, a single file that runs on every Linux of that processor, and
# starts it. Needs rustup, or Debian's packages (see musl-std.sh), and musl-gcc for the C parts.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
target=x86_64-unknown-linux-musl
cd "$here/../../.."

if ! command -v musl-gcc >/dev/null; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends musl-tools
    else
        echo "static: musl-gcc is missing; on Debian or Ubuntu: sudo apt-get install musl-tools" >&2
        exit 1
    fi
fi
lib="$(rustc --print sysroot)/lib/rustlib/$target/lib"
if ! compgen -G "$lib/libstd-*.rlib" >/dev/null; then
    rustup target add "$target" || "$here/musl-std.sh"
fi

cargo build --release --locked --target "$target" -p strait
binary="${CARGO_TARGET_DIR:-target}/$target/release/strait"
if readelf -l "$binary" | grep -q INTERP; then
    echo "static: $binary asks for a dynamic loader" >&2
    exit 1
fi
"$binary" --version
"$binary" demo --quiet
ls -l "$binary"
