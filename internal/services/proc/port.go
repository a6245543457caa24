package proc

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// FreePort returns a free TCP port of 127.0.0.1. It takes none from the range
// that systems use for outgoing connections: one of those could be given away
// while its server is down, and the server could then not come back.
func FreePort() (int, error) {
	var last error
	for range 100 {
		port := 10000 + rand.IntN(20000)
		l, err := net.Listen("tcp", Address(port))
		if err != nil {
			last = err
			continue
		}
		return port, l.Close()
	}
	return 0, fmt.Errorf("find a free port: %w", last)
}

// Address returns 127.0.0.1:port.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
