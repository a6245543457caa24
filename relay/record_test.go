package relay

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outboxkit/outboxkit/brokers"
)

// record is the broker of several relay processes: it puts what they publish in
// one order, and confirms it.
type record struct {
	history

	path string
}

func newRecord(t testing.TB) *record {
	t.Helper()
	rec := &record{path: filepath.Join(t.TempDir(), "r.sock")}
	listener, err := net.Listen("unix", rec.path)
	require.NoError(t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { rec.serve(conn) })
		}
	})
	// The processes, which hold the other ends, are killed before that.
	t.Cleanup(serving.Wait)
	t.Cleanup(func() { _ = listener.Close() })
	return rec
}

// published is the number of publications, repeats included.
func (rec *record) published() (n int) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for _, l := range rec.keys {
		n += len(l)
	}
	return n
}

// serve takes lines of key and payload; an empty one asks for confirmation. What a
// killed process has torn is no line.
func (rec *record) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if line == "\n" {
			if _, err := conn.Write([]byte{'\n'}); err != nil {
				return
			}
			continue
		}
		key, n, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		rec.add([]brokers.Message{{Key: key, Payload: []byte(n)}})
	}
}

// recordBroker is a process's connection to the record.
type recordBroker struct {
	net.Conn
}

func dialRecord(path string) (recordBroker, error) {
	conn, err := net.Dial("unix", path)
	return recordBroker{conn}, err
}

// Publish sends a few lines at a time, so that kills and stops fall in between.
func (b recordBroker) Publish(_ context.Context, msgs []brokers.Message) []error {
	results := make([]error, len(msgs))
	for len(msgs) > 0 {
		n := min(len(msgs), 5)
		var text []byte
		for _, m := range msgs[:n] {
			text = fmt.Appendf(text, "%s %s\n", m.Key, m.Payload)
		}
		if _, err := b.Write(append(text, '\n')); err != nil {
			panic(err)
		}
		if _, err := b.Read(make([]byte, 1)); err != nil {
			panic(err)
		}
		msgs = msgs[n:]
	}
	return results
}
