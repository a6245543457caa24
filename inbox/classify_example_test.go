package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/outboxkit/outboxkit/inbox"
)

// Errors that are not the handler's own, said once for all handlers: what breaks a
// constraint is bad for good, and while the warehouse cannot be reached no event
// can be handled.
func ExampleConfig_classify() {
	cfg := inbox.Config{
		Consumer: "inventory",
		Classify: func(err error) error {
			var constraint *pgconn.PgError
			var dial *net.OpError
			switch {
			case errors.As(err, &constraint) && strings.HasPrefix(constraint.Code, "23"): // integrity constraint violation
				return inbox.Permanent(err)
			case errors.As(err, &dial) && dial.Op == "dial":
				return inbox.Unavailable(err)
			}
			return err
		},
	}
	var listener net.ListenConfig
	l, err := listener.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	_ = l.Close() // nobody is there
	_, err = (&net.Dialer{}).DialContext(context.Background(), "tcp", l.Addr().String())
	var says interface{ Unavailable() bool }
	fmt.Println(errors.As(cfg.Classify(err), &says) && says.Unavailable())
	// Output: true
}
