#!/usr/bin/env bash
# Builds Rust's std for x86_64-unknown-linux-musl from Debian's packages and puts it into the active toolchain, for machines on
# which `rustup target add` cannot download. It fits one kind of machine: root on a Debian that has libunwind-14-dev and
# whose trixie-backports have rust-src of exactly the toolchain's version. It writes into the toolchain's folder, and while
# it works a file into /etc/apt/sources.list.d.
set -euo pipefail

target=x86_64-unknown-linux-musl
musl=/usr/lib/x86_64-linux-musl
version="$(rustc -vV | sed -n 's/^release: //p')"
lib="$(rustc --print sysroot)/lib/rustlib/$target/lib"
startup="$lib/self-contained"
compgen -G "$lib/libstd-*.rlib" >/dev/null && exit 0

hint="this script needs root on a Debian with libunwind-14-dev, and rust-src $version in trixie-backports; elsewhere install Rust's std for $target: 'rustup target add $target', or your distribution's package"
fail() {
    echo "musl-std: $1; $hint" >&2
    exit 1
}
trap 'echo "musl-std: line $LINENO failed; $hint" >&2' ERR
[ "$(id -u)" -eq 0 ] || fail "not run as root, so packages cannot be installed"
command -v apt-get >/dev/null || fail "apt-get is missing"

unwind=/usr/lib/llvm-14/lib/libunwind.a
if ! command -v musl-gcc >/dev/null || [ ! -f "$unwind" ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends musl-tools libunwind-14-dev
fi

# The sources of exactly this std are in the backports of Debian 13.
work="$(mktemp -d)"
backports=/etc/apt/sources.list.d/strait-musl-std.sources
trap 'rm -rf "$work" "$backports"' EXIT
awk -v RS= 'NR==1' /etc/apt/sources.list.d/debian.sources |
    sed 's/^Suites:.*/Suites: trixie-backports/' >"$backports"
apt-get update -qq
cd "$work"
package="$(apt-cache madison rust-src | awk -v v="$version+" 'index($3, v) == 1 { print $3; exit }')"
[ -n "$package" ] || fail "there is no package rust-src of version $version"
apt-get download -qq "rust-src=$package"
dpkg-deb --fsys-tarfile rust-src_*.deb | tar -x --wildcards "./usr/src/rustc-$version/library"

rm -rf "$lib"
mkdir -p "$startup" crate/src objects
cp "$musl"/{rcrt1,crt1,crti,crtn,Scrt1}.o "$musl/libc.a" "$startup"
for object in crtbegin crtbeginS crtend crtendS; do
    cp "$(gcc -print-file-name=$object.o)" "$startup"
done
# C code that was compiled for glibc asks for __fprintf_chk, C code in general for libgcc's own functions.
cat >fortified.c <<'C'
#include <stdarg.h>
#include <stdio.h>
int __fprintf_chk(FILE *file, int flag, const char *format, ...) {
    va_list list;
    (void)flag;
    va_start(list, format);
    int written = vfprintf(file, format, list);
    va_end(list);
    return written;
}
C
musl-gcc -O2 -fPIC -c fortified.c
(cd objects && ar x "$(gcc -print-libgcc-file-name)")
cp "$unwind" "$startup"
ar qc "$startup/libunwind.a" fortified.o objects/*.o

printf '[package]\nname = "crate"\nversion = "0.0.0"\nedition = "2021"\n[lib]\n' >crate/Cargo.toml
: >crate/src/lib.rs
RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT="$work/usr/src/rustc-$version/library" \
    CC_x86_64_unknown_linux_musl=musl-gcc \
    cargo build -q --release --manifest-path crate/Cargo.toml --target "$target" --target-dir built \
    -Zbuild-std=std,panic_unwind,panic_abort,test,proc_macro
rm -f "built/$target"/release/deps/libcrate-*
cp "built/$target"/release/deps/*.{rlib,rmeta} "$lib"
chmod -R a+rX "$lib"
