#!/bin/sh
# Compares the Go benchmarks of the hot paths with those of another commit, in
# turn, so that both see the same neighbours: bench/compare.sh [base]
# COUNT (default 6) rounds; BENCHMARKS (default the hot paths) is a pattern.
set -eu
base=${1:-main}
count=${COUNT:-6}
pattern=${BENCHMARKS:-Decode|PlainHeaders|Drain}
root=$(git rev-parse --show-toplevel)
work=$(mktemp -d)
trap 'git -C "$root" worktree remove --force "$work/base"; rm -rf "$work"' EXIT
git -C "$root" worktree add --quiet --detach "$work/base" "$base"
for _ in $(seq "$count"); do
	for side in base change; do
		dir=$root
		[ "$side" = base ] && dir=$work/base
		(cd "$dir" && go test ./relay -run '^$' -bench "$pattern" -benchtime "${BENCHTIME:-1s}" -benchmem) >>"$work/$side.txt" || true
	done
done
go run golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da "$work/base.txt" "$work/change.txt"
