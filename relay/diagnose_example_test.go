package relay_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outboxkit/outboxkit/relay"
)

// An embedded relay's service prints at its start what will trouble it.
func ExampleDiagnose() {
	diagnose := func(ctx context.Context, pool *pgxpool.Pool) {
		for _, f := range relay.Diagnose(ctx, pool, relay.DiagnoseConfig{}) {
			if f.Verdict != relay.VerdictOK {
				fmt.Println(f.Verdict, f.Check, f.Detail, f.Cure)
			}
		}
	}
	_ = diagnose
}
