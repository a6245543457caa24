package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// screen prints what happens: on a terminal below a status line that is
// rewritten all the time, elsewhere as plain lines with a status now and then.
type screen struct {
	w     io.Writer
	live  bool
	began time.Time

	mu     sync.Mutex
	status string
}

func newScreen(w io.Writer) *screen {
	f, isFile := w.(*os.File)
	return &screen{w: w, live: isFile && term.IsTerminal(int(f.Fd())), began: time.Now()}
}

const eraseLine = "\r\x1b[K"

// say prints a line that stays.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := fmt.Sprintf("%5.1fs  ", time.Since(s.began).Seconds()) + fmt.Sprintf(format, args...)
	if s.live {
		fmt.Fprint(s.w, eraseLine, line, "\n", s.status)
		return
	}
	fmt.Fprintln(s.w, line)
}

// show keeps the status up to date until the returned function is called. It
// calls status from a goroutine of its own.
func (s *screen) show(status func() string) (end func()) {
	every := 2 * time.Second
	if s.live {
		every = 100 * time.Millisecond
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.update(status())
			case <-stop:
				s.update("")
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(stop); <-done })
}

func (s *screen) update(status string) {
	if !s.live {
		if status != "" {
			s.say("%s", status)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
	fmt.Fprint(s.w, eraseLine, status)
}
