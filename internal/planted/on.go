//go:build planted

package planted

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
)

// Possible tells whether bugs can be planted in this build.
const Possible = true

// chosen is the process's bug. A name that is none must not look like a bug that
// nobody finds.
var chosen = sync.OnceValue(func() Bug {
	b := Bug(os.Getenv(Env))
	if b != "" && !slices.Contains(Bugs(), b) {
		panic(fmt.Sprintf("%s=%s: no such bug; there are %q", Env, b, Bugs()))
	}
	return b
})

// Is tells whether a bug is planted.
func Is(b Bug) bool { return chosen() == b }

// Rewrite returns in, which in a build with planted bugs also replaces a part of
// the statements that it is given.
func Rewrite(b Bug, in func(string) string, old, new string) func(string) string {
	if !Is(b) {
		return in
	}
	return func(query string) string { return in(strings.ReplaceAll(query, old, new)) }
}
