#!/bin/sh
# Fuzzes each target, or those named, for TIME seconds (60), starting from the corpora in
# tests/fuzz/corpus. With MERGE=1 what is new there is kept, minimised. Works on stable Rust: the
# instrumentation is LLVM's own pass, the engine is the libfuzzer-sys crate.
set -eu
cd "$(dirname "$0")"
host=$(rustc -vV | sed -n 's/^host: //p')
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags="$flags -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags="$flags -Cllvm-args=-sanitizer-coverage-pc-table"
flags="$flags -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
# With --target the flags do not reach build scripts.
RUSTFLAGS="$flags" cargo build --release --quiet --target "$host"
fuzz=target/$host/release/hafailover-fuzz
kept=../tests/fuzz/corpus
[ $# -gt 0 ] || set -- frame body window line slot table target config keys control witness
for name; do
    mkdir -p "corpus/$name" "artifacts/$name" "$kept/$name"
    echo "== $name"
    TARGET=$name "$fuzz" -max_total_time="${TIME:-60}" -max_len="${LEN:-4096}" -timeout=5 \
        -print_final_stats=1 -artifact_prefix="artifacts/$name/" \
        "corpus/$name" "$kept/$name" >"artifacts/$name.log" 2>&1 || true
    grep -E '^#.*DONE|^stat::(number|average)|SUMMARY' "artifacts/$name.log" || true
    grep -A3 panicked "artifacts/$name.log" || true
    if [ -n "$(ls "artifacts/$name")" ]; then
        echo "$name: found: $(ls "artifacts/$name")"
        exit 1
    fi
    if [ "${MERGE:-}" = 1 ]; then
        # One input for each edge; what people named stays beside them.
        rm -rf "corpus/$name.min" && mkdir "corpus/$name.min"
        TARGET=$name "$fuzz" -set_cover_merge=1 -use_counters=0 -max_len=512 \
            "corpus/$name.min" "$kept/$name" "corpus/$name" >"artifacts/$name.log" 2>&1
        find "$kept/$name" -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
        cp "corpus/$name.min"/* "$kept/$name/"
    fi
done
