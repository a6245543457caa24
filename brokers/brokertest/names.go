package brokertest

import (
	"crypto/rand"
	"strings"
)

// uniqueName returns a name that no other test uses, so that one server serves
// all of them.
func uniqueName(prefix string) string {
	return prefix + "-" + strings.ToLower(rand.Text()[:12])
}
