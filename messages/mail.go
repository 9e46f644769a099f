package messages

import (
	"math"
	"strconv"
	"time"
)

// MailState is what became of a message.
type MailState string

// What becomes of a message. All but waiting are final.
const (
	MailDelivered MailState = "delivered" // its receiver has handled it
	MailWaiting   MailState = "waiting"   // it is stored, and its receiver has not had it yet
	MailExpired   MailState = "expired"   // its time was over before its receiver was there
	MailRefused   MailState = "refused"   // its receiver has had it and does not take it; an error says why
)

// Mail is all of a message between environments but its body. Who writes it and for whom
// stands in the subject.
type Mail struct {
	ID          string
	Life        Fence         // of the sender, which counts its messages; zero: it does not
	Seq         uint64        // within that life, from 1; grows
	Left        time.Duration // how long it is good for, when it was sent; NoDeadline: as long as mail waits
	ContentType string
	Traceparent string
}

// Header returns the message as NATS headers. Left is rounded down to whole milliseconds.
func (m Mail) Header() Header {
	h := Header{HeaderID: {m.ID}}
	set := func(k, v string) {
		if v != "" {
			h[k] = []string{v}
		}
	}
	if !m.Life.IsZero() {
		set(HeaderIncarnation, m.Life.String())
		set(HeaderSeq, strconv.FormatUint(m.Seq, 10))
	}
	if m.Left != NoDeadline {
		set(HeaderLeft, strconv.FormatInt(max(0, m.Left.Milliseconds()), 10))
	}
	set(HeaderType, oneLine(m.ContentType))
	set(HeaderTrace, oneLine(m.Traceparent))
	return h
}

// ParseMail reads a message from NATS headers.
func ParseMail(h Header) (Mail, error) {
	g := headerReader{h: h}
	m := Mail{ID: g.text(HeaderID), Seq: g.number(HeaderSeq, 0, math.MaxUint64), Left: NoDeadline, ContentType: g.text(HeaderType), Traceparent: g.text(HeaderTrace)}
	if len(h[HeaderLeft]) > 0 {
		m.Left = time.Duration(g.number(HeaderLeft, 0, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
	}
	if s := g.text(HeaderIncarnation); s != "" {
		life, err := ParseFence(s)
		if err != nil {
			g.fail(HeaderIncarnation, s, "<epoch>-<revision>")
		}
		m.Life = life
	}
	if g.err == nil {
		g.err = CheckName(HeaderID, m.ID)
	}
	if g.err == nil && m.Life.IsZero() {
		m.Seq = 0 // it counts within a life
	}
	return m, g.err
}

// MailReply is what became of a message, as its receiver says it.
type MailReply struct {
	ID    string
	State MailState
	Err   *Error // with refused; and where a receiver cannot take it now, which leaves State empty
}

// Header returns the reply as NATS headers.
func (r MailReply) Header() Header {
	h := Header{HeaderID: {r.ID}}
	if r.State != "" {
		h[HeaderKind] = []string{string(r.State)}
	}
	if r.Err != nil {
		h[HeaderError] = []string{string(r.Err.Code)}
		h[HeaderErrorText] = []string{oneLine(r.Err.Message)}
		if r.Err.RetryAfter > 0 {
			h[HeaderRetryAfter] = []string{strconv.FormatInt(r.Err.RetryAfter.Milliseconds(), 10)}
		}
	}
	return h
}

// ParseMailReply reads a reply from NATS headers. One without any of ours says that the
// message was delivered: a receiver in any language need only answer.
func ParseMailReply(h Header) (MailReply, error) {
	g := headerReader{h: h}
	r := MailReply{ID: g.text(HeaderID), State: MailState(g.text(HeaderKind))}
	if code := g.text(HeaderError); code != "" {
		r.Err = &Error{Code: Code(code), Message: g.text(HeaderErrorText),
			RetryAfter: time.Duration(g.number(HeaderRetryAfter, 0, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond}
		if !r.Err.Code.Known() {
			r.Err = &Error{Code: CodeInternal, Message: code + ": " + r.Err.Message}
		}
	}
	switch r.State {
	case MailDelivered, MailWaiting, MailExpired:
	case MailRefused:
		if r.Err == nil {
			r.Err = Errorf(CodeBackendFailed, "its receiver does not take it")
		}
	case "":
		if r.Err == nil {
			r.State = MailDelivered
		}
	default:
		g.fail(HeaderKind, string(r.State), "delivered, waiting, expired or refused")
	}
	return r, g.err
}
