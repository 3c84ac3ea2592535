#!/usr/bin/env bash
# Plants known bugs into a copy of the workspace, one after the other, and demands that the simulation finds each.
# PLANT_SEEDS: seeds tried per bug (default 400). Arguments: patches to try (default: all).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here" && git rev-parse --show-toplevel)
# The same target directory, so that dependencies are there already; always the same place, so that only what a
# patch touches is built again.
export CARGO_TARGET_DIR="$root/target"
plants="$CARGO_TARGET_DIR/plants"
copy="$plants/workspace"
log="$plants/log"
mkdir -p "$plants"
rm -rf "$copy"
mkdir "$copy"
cd "$root"
git ls-files -z | tar -c --null --ignore-failed-read -T - | tar -x -C "$copy"
cd "$copy"

patches=("$@")
[ ${#patches[@]} -gt 0 ] || patches=("$here"/*.patch)
missed=0
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    patch --quiet -p1 --no-backup-if-mismatch < "$patch"
    if ! cargo test --quiet --locked -p strait-engine --test simulation --no-run > "$log" 2>&1; then
        cat "$log"
        echo "$name: the patch does not compile; make it fit the code again"
        exit 1
    fi
    began=$SECONDS
    # The test that has to fail; the others would only take time.
    test=$(sed -n 's/^Test: //p' "$patch")
    if STRAIT_SEEDS=${PLANT_SEEDS:-400} STRAIT_FAILURES=1 \
        cargo test --quiet --locked -p strait-engine --test simulation "${test:?"$name.patch names no test"}" > "$log" 2>&1; then
        echo "$name: NOT caught by ${PLANT_SEEDS:-400} seeds"
        missed=1
    elif caught=$(grep -m 1 -oE '^seed [0-9]+( violates|:) .*' "$log"); then
        echo "$name: caught in $((SECONDS - began)) s: ${caught:0:160}"
    else
        tail -n 40 "$log"
        echo "$name: failed, but not with a broken invariant"
        missed=1
    fi
    patch --quiet -R -p1 --no-backup-if-mismatch < "$patch"
done
exit $missed
