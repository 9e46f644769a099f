package messages

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// ReplyKind says what a message on a reply subject tells.
type ReplyKind string

// The kinds of replies. A request has at most one result; accepted and progress may
// come before it.
const (
	ReplyAccepted ReplyKind = "accepted" // an executor has it, and its time is not over
	ReplyProgress ReplyKind = "progress" // a partial result (Part is not 0), or a report of progress; only to those who ask for them
	ReplyResult   ReplyKind = "result"   // the answer or the error; nothing comes after it
)

// Reply is all of a reply but its body. In headers the absence of a kind means a result. The body of a result without an error is the
// handler's, byte for byte.
type Reply struct {
	Kind        ReplyKind
	ID          string // of the request
	Attempt     int    // of the request; an older attempt's result may come late
	Agent       string // who answers; the subject signs it
	Inc         Incarnation
	Service     time.Duration // that the handler took
	Err         *Error        // nil: it went well
	ContentType string
	Job         string // training: the job's id
	Part        int    // of a partial result its number, from 1; of a result how many came before it
	Done        int    // of progress: thousandths
	Note        string // of progress: for people
}

// MaxPart bounds how many partial results one attempt may send.
const MaxPart = 1_000_000_000

// Header returns the reply as NATS headers.
func (r Reply) Header() Header { return new(Headers).Reply(&r) }

// Reply makes the headers of a reply, see [Reply.Header].
func (w *Headers) Reply(r *Reply) Header {
	w.reset()
	set := w.set
	set(HeaderKind, string(r.Kind))
	set(HeaderID, r.ID)
	if r.Attempt > 0 {
		set(HeaderAttempt, strconv.Itoa(r.Attempt))
	}
	set(HeaderAgent, r.Agent)
	if !r.Inc.IsZero() {
		set(HeaderIncarnation, r.Inc.String())
	}
	if r.Service > 0 {
		set(HeaderService, strconv.FormatInt(r.Service.Microseconds(), 10))
	}
	set(HeaderType, oneLine(r.ContentType)) // a handler may say anything
	set(HeaderJob, r.Job)
	for _, n := range []struct {
		key   string
		value int
	}{{HeaderPart, r.Part}, {HeaderDone, r.Done}} {
		if n.value > 0 {
			set(n.key, strconv.Itoa(n.value))
		}
	}
	set(HeaderNote, oneLine(r.Note))
	if r.Err != nil {
		set(HeaderError, string(r.Err.Code))
		set(HeaderErrorText, oneLine(r.Err.Message))
		if r.Err.RetryAfter > 0 {
			set(HeaderRetryAfter, strconv.FormatInt(r.Err.RetryAfter.Milliseconds(), 10))
		}
	}
	return w.h
}

// ParseReply reads a reply from NATS headers.
func ParseReply(h Header) (Reply, error) {
	g := headerReader{h: h}
	r := Reply{
		Kind: ReplyKind(g.text(HeaderKind)), ID: g.text(HeaderID), Attempt: int(g.number(HeaderAttempt, 0, maxAttempt)),
		Agent: g.text(HeaderAgent), ContentType: g.text(HeaderType), Job: g.text(HeaderJob),
		Part: int(g.number(HeaderPart, 0, MaxPart)), Done: int(g.number(HeaderDone, 0, 1000)), Note: g.text(HeaderNote),
		Service: time.Duration(g.number(HeaderService, 0, math.MaxInt64/1000)) * time.Microsecond,
	}
	if s := g.text(HeaderIncarnation); s != "" {
		inc, err := ParseFence(s)
		if err != nil {
			g.fail(HeaderIncarnation, s, "<epoch>-<revision>")
		}
		r.Inc = inc
	}
	if code := g.text(HeaderError); code != "" {
		r.Err = &Error{Code: Code(code), Message: g.text(HeaderErrorText),
			RetryAfter: time.Duration(g.number(HeaderRetryAfter, 0, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond}
		if !r.Err.Code.Known() {
			// A newer program's code: its reason stays readable, its advice is not known.
			r.Err = &Error{Code: CodeInternal, Message: code + ": " + r.Err.Message}
		}
	}
	if len(h[HeaderKind]) == 0 {
		r.Kind = ReplyResult
	}
	switch r.Kind {
	case ReplyAccepted, ReplyProgress, ReplyResult:
	default:
		g.fail(HeaderKind, string(r.Kind), "accepted, progress or result")
	}
	if g.err == nil {
		g.err = CheckName(HeaderID, r.ID)
	}
	if g.err == nil && r.Agent != "" {
		g.err = CheckName(HeaderAgent, r.Agent)
	}
	if g.err != nil {
		return Reply{}, g.err
	}
	return r, nil
}

// oneLine makes any text fit to be a header's value: no line ends, no control
// characters, at most maxHeaderText bytes, valid UTF-8, no space at the ends.
func oneLine(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxHeaderText {
		s = strings.ToValidUTF8(s[:maxHeaderText-3], "") + "…"
	}
	return strings.TrimSpace(s)
}
