#!/usr/bin/env bash
# SPDX-License-Identifier: PSF-2.0
#
# The layers below py/ under ThreadSanitizer: threads of one process over one mapping, without an interpreter.
# (It sees one process: what processes do to each other would look like a race to it.)
#
#   tests/native/run_tsan.sh [PROGRAM ...]        # all tests/native/*_test.c by default
#
# No suppressions: a report fails the run. CC chooses the compiler.
set -u -o pipefail
cd "$(dirname "$0")/../.." || exit 1

library=Modules/_cmultiprocessing
work=build/tsan
rm -rf "$work" && mkdir -p "$work/library" || exit 1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
sources=()
for layer in core os io shm sync structures; do
    for source in "$library/$layer"/*.c; do
        [ -e "$source" ] && sources+=("$PWD/$source")
    done
done
compile=("${CC:-gcc}" -std=c11 -D_GNU_SOURCE -DMP_TESTING -UNDEBUG -g -O1 -fsanitize=thread "-I$PWD/$library")
(cd "$work/library" && "${compile[@]}" -c "${sources[@]}") || exit 1
failed=0 ran=0
for program in "${@:-$(cd tests/native && ls -- *_test.c | sed 's/\.c$//')}"; do
    for name in $program; do
        "${compile[@]}" -Itests/native "tests/native/$name.c" "$work"/library/*.o -o "$work/$name" -lpthread -lm || exit 1
        for test in $("$work/$name" | grep '^threads_'); do
            ran=$((ran + 1))
            if timeout 100 "$work/$name" "$test"; then
                echo "ok      $name $test"
            else
                echo "FAILED  $name $test"
                failed=$((failed + 1))
            fi
        done
    done
done
echo "$ran run, $failed failed"
[ "$ran" -gt 0 ] && [ "$failed" -eq 0 ]
