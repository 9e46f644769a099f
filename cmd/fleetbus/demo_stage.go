package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// stage prints the story: lines with the time since the beginning, and below them, on a
// terminal, one line that is painted again while things run.
type stage struct {
	began time.Time

	mu      sync.Mutex
	out     io.Writer
	tty     bool
	painted bool // the last line is a status line
}

func newStage(out io.Writer, began time.Time) *stage {
	f, ok := out.(*os.File)
	return &stage{began: began, out: out, tty: ok && term.IsTerminal(int(f.Fd()))}
}

// eraseLine moves to the line's beginning and erases it (ECMA-48 EL).
const eraseLine = "\r\x1b[2K"

func (s *stage) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.painted {
		fmt.Fprint(s.out, eraseLine)
		s.painted = false
	}
	fmt.Fprintf(s.out, "%6.1f s  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// live shows a status until ctx ends: four times a second on a terminal, elsewhere a
// line every five seconds, so that a CI log stays short.
func (s *stage) live(ctx context.Context, status func() string) {
	every := 5 * time.Second
	if s.tty {
		every = 250 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !s.tty {
			s.say("%s", status())
			continue
		}
		s.mu.Lock()
		fmt.Fprintf(s.out, "%s%6.1f s  %s", eraseLine, time.Since(s.began).Seconds(), status())
		s.painted = true
		s.mu.Unlock()
	}
}
