package execio

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// maxHeader bounds a frame's header, bytes. The largest one that we send has a few
// names of 64 bytes in it; text that was printed by mistake reads as a length of
// hundreds of megabytes.
const maxHeader = 64 << 10

// DefaultMaxBody bounds a frame's body, bytes: far above what NATS carries (8 MB).
const DefaultMaxBody = 64 << 20

// The types of frames.
const (
	typeReady    = "ready"
	typeRequest  = "request"
	typeCancel   = "cancel"
	typeResult   = "result"
	typeError    = "error"
	typeProgress = "progress"
	typePartial  = "partial"
	typeLog      = "log"

	typeCheckpoint   = "checkpoint"
	typeCheckpointed = "checkpointed"
)

// header is the header of any frame; each type uses some of the fields.
type header struct {
	Type        string  `json:"type"`
	ID          uint64  `json:"id,omitempty"`
	Task        string  `json:"task,omitempty"`
	Class       string  `json:"class,omitempty"`
	DeadlineMS  *int64  `json:"deadline_ms,omitempty"`
	ContentType string  `json:"content_type,omitempty"`
	Request     string  `json:"request,omitempty"`
	Attempt     int     `json:"attempt,omitempty"`
	Origin      string  `json:"origin,omitempty"`
	Key         string  `json:"key,omitempty"`
	Seq         uint64  `json:"seq,omitempty"`
	Episode     string  `json:"episode,omitempty"`
	Stream      bool    `json:"stream,omitempty"`
	Batch       int     `json:"batch,omitempty"`
	Code        string  `json:"code,omitempty"`
	Message     string  `json:"message,omitempty"`
	Done        float64 `json:"done,omitempty"`
	Note        string  `json:"note,omitempty"`
	File        string  `json:"file,omitempty"`
	Resume      string  `json:"resume,omitempty"`
}

// writeFrame writes one frame. w should be buffered.
func writeFrame(w io.Writer, h header, body []byte) error {
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	head := make([]byte, 0, 8+len(text))
	head = binary.BigEndian.AppendUint32(head, uint32(len(text)))
	head = append(head, text...)
	head = binary.BigEndian.AppendUint32(head, uint32(len(body)))
	if _, err := w.Write(head); err != nil {
		return err
	}
	_, err = w.Write(body)
	return err
}

// largeBody is the error of a frame that was read to its end and has more than may be kept.
type largeBody struct {
	kind string
	n    uint32
	most int
}

func (e *largeBody) Error() string {
	return fmt.Sprintf("a %s frame has a body of %d bytes, allowed are %d; send a reference instead, or raise MaxBody", quote([]byte(e.kind)), e.n, e.most)
}

// readFrame reads one frame. The error is io.EOF where the input ends between two
// frames, a [*largeBody] where the next one can be read, and says what was found instead of a
// frame otherwise.
func readFrame(r *bufio.Reader, maxBody int) (header, []byte, error) {
	var h header
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return h, nil, io.EOF
		}
		return h, nil, fmt.Errorf("its output ends inside the length of a header: %w", err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxHeader {
		return h, nil, notAFrame(r, size[:], n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return h, nil, fmt.Errorf("its output ends inside a header of %d bytes: %w", n, err)
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return h, nil, fmt.Errorf("the header of a frame is not a JSON object as expected: %v; found %s", err, quote(text))
	}
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return h, nil, fmt.Errorf("its output ends inside the length of a body: %w", err)
	}
	n = binary.BigEndian.Uint32(size[:])
	if uint64(n) > uint64(maxBody) {
		if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
			return h, nil, fmt.Errorf("its output ends inside a body of %d bytes, allowed are %d: %w", n, maxBody, err)
		}
		return h, nil, &largeBody{h.Type, n, maxBody}
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return h, nil, fmt.Errorf("its output ends inside a body of %d bytes: %w", n, err)
	}
	return h, body, nil
}

// notAFrame makes the error of an output that is no frame, and shows its beginning.
func notAFrame(r *bufio.Reader, start []byte, n uint32) error {
	more, _ := r.Peek(min(r.Buffered(), 60)) // what is there already; it is for the message alone
	seen := append(append(make([]byte, 0, 64), start...), more...)
	return fmt.Errorf("its output is not a frame: a header of %d bytes, allowed are %d; it begins with %s; only frames may go to standard output, print to standard error instead", n, maxHeader, quote(seen))
}

// quote renders bytes of a stranger for an error: short, printable, on one line.
func quote(b []byte) string {
	const most = 48
	s := strings.Map(func(c rune) rune {
		if c == unicode.ReplacementChar || !unicode.IsPrint(c) {
			return '.'
		}
		return c
	}, string(b[:min(len(b), most)]))
	if len(b) > most {
		s += "…"
	}
	return `"` + s + `"`
}
