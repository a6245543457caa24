package inboxtest

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Query returns a Stress.Snapshot that runs queries and writes a line for each
// row, sorted, with the names of its columns. Name the columns that must be the
// same however often and in whatever order events arrive: no generated ids, no
// times.
//
//	inboxtest.Query(`SELECT sku, qty FROM stock`, `SELECT type, key, payload FROM outbox.event`)
func Query(queries ...string) func(ctx context.Context, pool *pgxpool.Pool) (string, error) {
	return func(ctx context.Context, pool *pgxpool.Pool) (string, error) {
		var lines []string
		for _, q := range queries {
			rows, err := pool.Query(ctx, `SELECT row_to_json(q)::text FROM (`+q+`) q ORDER BY 1`)
			if err != nil {
				return "", fmt.Errorf("%s: %w", q, err)
			}
			found, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				return "", fmt.Errorf("%s: %w", q, err)
			}
			lines = append(lines, q+":")
			for _, line := range found {
				lines = append(lines, "  "+line)
			}
		}
		return strings.Join(lines, "\n"), nil
	}
}

// maxShown bounds the lines of each kind in a difference.
const maxShown = 20

// difference returns the lines that one text has more often than the other, or,
// if these are the same, where their order differs; "" for equal texts.
func difference(want, got string) string {
	if want == got {
		return ""
	}
	wants, gots := strings.Split(want, "\n"), strings.Split(got, "\n")
	missing, extra := surplus(wants, gots), surplus(gots, wants)
	if len(missing)+len(extra) == 0 {
		for i := range wants {
			if wants[i] != gots[i] {
				return fmt.Sprintf("the same lines in another order, from line %d:\n- %s\n+ %s\n", i+1, wants[i], gots[i])
			}
		}
	}
	return shown("- ", missing) + shown("+ ", extra)
}

// surplus are the lines that a has more often than b.
func surplus(a, b []string) (lines []string) {
	left := map[string]int{}
	for _, line := range b {
		left[line]++
	}
	for _, line := range a {
		if left[line]--; left[line] < 0 {
			lines = append(lines, line)
		}
	}
	return lines
}

func shown(sign string, lines []string) string {
	var b strings.Builder
	for _, line := range lines[:min(len(lines), maxShown)] {
		b.WriteString(sign + line + "\n")
	}
	if more := len(lines) - maxShown; more > 0 {
		fmt.Fprintf(&b, "%sand %d more\n", sign, more)
	}
	return b.String()
}
