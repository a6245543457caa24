package main

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// explained is an error as it is printed: without passwords, and with what to do next
// where the database's own words leave that open.
func explained(err error) string {
	text := withoutPasswords(err.Error())
	if next := hint(err); next != "" {
		text += " (" + next + ")"
	}
	return text
}

func hint(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "28P01", "28000":
			return "the role or its password is wrong, or pg_hba.conf does not let it in from here; relay config show has the configured role"
		case "3D000":
			return "is the database's name in the URL right? relay config show has the configured one"
		case "42501":
			return "a right is missing: relay migrate sql prints the grants"
		case "53300":
			return "the server has no connection left: raise max_connections, or use a pooler"
		}
	}
	var away *pgconn.ConnectError
	if pg == nil && errors.As(err, &away) {
		return "is Postgres up, and are host, port and TLS in the URL right? relay config show has the configured one"
	}
	return ""
}
