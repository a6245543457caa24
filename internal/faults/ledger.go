package faults

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// entry is a line of a service's ledger. Each event has one before its transaction
// commits or rolls back, and perhaps one with the answer.
type entry struct {
	ID       string    `json:"id"`
	Key      string    `json:"key,omitempty"`
	N        int64     `json:"n,omitempty"`
	At       time.Time `json:"at"`
	Kind     string    `json:"kind,omitempty"`
	Rollback bool      `json:"rollback,omitempty"` // it will be rolled back on purpose
	Answer   bool      `json:"answer,omitempty"`   // the database has answered "committed"
}

// ledger is a service's own memory of what it has tried: a file, because a killed
// process takes nothing else along.
type ledger struct {
	mu sync.Mutex
	f  *os.File
}

func openLedger(path string) (*ledger, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return &ledger{f: f}, nil
}

// note writes e in one system call: a kill leaves whole lines.
func (l *ledger) note(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err = l.f.Write(append(line, '\n'))
	return err
}

func (l *ledger) close() error { return l.f.Close() }

// readLedger returns the events of a ledger, by id, with what is known in the end.
func readLedger(path string, into map[string]entry) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var e entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("ledger %s: %w", path, err)
		}
		if had, ok := into[e.ID]; ok && e.Answer {
			had.Answer = true
			e = had
		}
		into[e.ID] = e
	}
	return lines.Err()
}
