// Command release builds what a release consists of: make release. Two builds of a
// commit with one version of Go are the same byte for byte, wherever and whenever
// they are made.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// platforms are those that we publish for: GOOS/GOARCH.
const platforms = "linux/amd64,linux/arm64,darwin/arm64"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var r release
	flag.StringVar(&r.out, "out", "dist", "`folder` for the results; what is in it is removed")
	list := flag.String("platforms", platforms, "comma-separated `GOOS/GOARCH`")
	flag.Parse()
	r.source, r.platforms, r.log = ".", strings.Split(*list, ","), os.Stderr
	if err := r.build(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
	sums, err := os.ReadFile(filepath.Join(r.out, sumsFile))
	if err == nil {
		_, err = os.Stdout.Write(sums)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}
