package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// Kind is what a record tells.
type Kind string

// The kinds of records.
const (
	Sent     Kind = "sent"     // client: about to ask
	Answered Kind = "answered" // client: has the answer
	Refused  Kind = "refused"  // client: has an error
	Begin    Kind = "begin"    // executor: begins to serve, the side effect may be seen from now on
	End      Kind = "end"      // executor: has served
	Stored   Kind = "stored"   // client: its job, message or body is acknowledged, and may not be lost from now on
	Routes   Kind = "routes"   // client: goes by the plan of the term Inc and the revision Seq from now on
	Held     Kind = "held"     // at the end: Agent holds the body Task with the digest Text
	Killed   Kind = "killed"   // whoever makes the faults: Agent was killed; what it had asked for ends there
)

// Record is one line of a history.
type Record struct {
	At      time.Time      `json:"at"`
	Who     string         `json:"who"` // the client or the agent that wrote it
	Kind    Kind           `json:"kind"`
	ID      string         `json:"id"`
	Class   messages.Class `json:"class"`
	Task    string         `json:"task"`
	Origin  string         `json:"origin,omitempty"`
	Episode string         `json:"episode,omitempty"`
	Seq     uint64         `json:"seq,omitempty"`
	Attempt int            `json:"attempt,omitempty"`
	Agent   string         `json:"agent,omitempty"` // answered: who served it
	Code    messages.Code  `json:"code,omitempty"`  // refused: why; end: the handler's error
	Text    string         `json:"text,omitempty"`  // refused: the message
	Sum     uint32         `json:"sum,omitempty"`   // CRC-32 of the request's body
	Millis  float64        `json:"ms,omitempty"`    // answered: since sent; sent: that the answer is worth waiting for

	// What only some write, and only some checkers ask for.
	Life int    `json:"life,omitempty"` // of the process that wrote it, from 1
	Exec string `json:"exec,omitempty"` // begin, end: names one execution; answered: the execution whose result it is
	Inc  string `json:"inc,omitempty"`  // begin of an action: the life of the robot's agent that it was meant for; routes: the term
	Via  string `json:"via,omitempty"`  // sent: the door it went through; "": the library
}

// Writer appends records to a file. It is safe for concurrent use.
type Writer struct {
	who string

	mu  sync.Mutex
	f   *os.File
	err error
}

// Open opens a history for appending and makes it where it is missing; who is written
// into every record.
func Open(path, who string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	return &Writer{who: who, f: f}, nil
}

// Write appends a record, with Who and, where it is zero, At filled in. The first error
// is kept for Close: a history that misses a line must not be judged.
func (w *Writer) Write(r Record) {
	r.Who = w.who
	if r.At.IsZero() {
		r.At = time.Now()
	}
	line, err := json.Marshal(r)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		// One write a line: with O_APPEND it is whole or absent, also after SIGKILL.
		_, err = w.f.Write(append(line, '\n'))
	}
	if w.err == nil {
		w.err = err
	}
}

// Close closes the file and returns the first error of any Write.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.err, w.f.Close())
}

// Read reads a history. A last line without its end is dropped: its writer was killed
// while it wrote. Anything else that is malformed is an error with the line's number.
func Read(path string) ([]Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	defer f.Close()
	var list []Record
	in := bufio.NewReader(f)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read history %s: %w", path, err)
		}
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("read history %s:%d: %w", path, n, err)
		}
		list = append(list, r)
	}
}
