package backendtest

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What a body asks a [Model] for. Any other body is echoed.
const (
	Fail     = "suite:fail"     // an error of the model's own, with the text FailText
	Peak     = "suite:peak"     // how many requests were at the model at once, at most
	Canceled = "suite:canceled" // how many it was told to drop
	hold     = "suite:hold "    // and a path: to wait until that file is there
)

// FailText is the error of a model that was asked to Fail.
const FailText = "not an image"

// Hold is a body that the model holds until a file is there.
func Hold(file string) []byte { return []byte(hold + file) }

// Model is what stands behind a backend in the suite. It may run in a process of its own.
// The zero value is ready to use.
type Model struct {
	mu             sync.Mutex
	now, peak, off int
}

// Serve is called for every request; ctx ends when the protocol says that nobody waits.
func (m *Model) Serve(ctx context.Context, body []byte) ([]byte, error) {
	m.mu.Lock()
	m.now++
	m.peak = max(m.peak, m.now)
	peak, off := m.peak, m.off
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.now--
		m.mu.Unlock()
	}()
	switch text := string(body[:min(len(body), 512)]); {
	case text == Fail:
		return nil, errors.New(FailText)
	case text == Peak:
		return []byte(strconv.Itoa(peak)), nil
	case text == Canceled:
		return []byte(strconv.Itoa(off)), nil
	case strings.HasPrefix(text, hold):
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := os.Stat(text[len(hold):]); err == nil {
				return body, nil
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				m.mu.Lock()
				m.off++
				m.mu.Unlock()
				return nil, ctx.Err()
			}
		}
	}
	return body, nil
}
