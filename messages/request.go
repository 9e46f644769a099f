package messages

import (
	"math"
	"strconv"
	"time"
)

// Header is the type of NATS headers, so that this package need not import a client.
// Keys are case-sensitive.
type Header = map[string][]string

// The headers of requests and replies. Everything that fleetbus needs to know of a
// message stands here; the body is the user's.
const (
	HeaderID          = "Fb-Id"            // request id: a name, chosen by the client, unique
	HeaderClass       = "Fb-Class"         // training, inference, action
	HeaderTask        = "Fb-Task"          // task name
	HeaderOrigin      = "Fb-Origin"        // who asks
	HeaderInbox       = "Fb-Inbox"         // last token of the reply subject
	HeaderAttempt     = "Fb-Attempt"       // 1, 2, …
	HeaderLeft        = "Fb-Left-Ms"       // whole ms that are left of the deadline, when it was sent
	HeaderKey         = "Fb-Key"           // inference: of one key only the newest observation counts
	HeaderSeq         = "Fb-Seq"           // action: position in its episode; inference: position within its key
	HeaderEpisode     = "Fb-Episode"       // action: the run of commands that Fb-Seq counts in
	HeaderIncarnation = "Fb-Incarnation"   // action: the life of the robot's agent that it is meant for
	HeaderQueue       = "Fb-Queue"         // action, at the router's door: 1: it waits for a robot that is not there
	HeaderSettled     = "Fb-Settled"       // in the journal, on the entry that ends a waiting action: SettledTaken or SettledWithdrawn
	HeaderStream      = "Fb-Stream"        // 1: partial results and progress are wanted on the reply subject
	HeaderType        = "Content-Type"     // passed through
	HeaderTrace       = "traceparent"      // W3C trace context, passed through; lower case on purpose
	HeaderKind        = "Fb-Kind"          // reply: accepted, progress, result
	HeaderAgent       = "Fb-Agent"         // reply: who answers
	HeaderService     = "Fb-Service-Us"    // reply: µs that the handler took
	HeaderPart        = "Fb-Part"          // reply: number of a partial result, from 1; of a result, how many came before it
	HeaderDone        = "Fb-Done"          // reply: progress, in thousandths
	HeaderNote        = "Fb-Note"          // reply: progress, for people
	HeaderError       = "Fb-Error"         // reply: a Code
	HeaderErrorText   = "Fb-Error-Message" // reply: one line for people
	HeaderRetryAfter  = "Fb-Retry-After-Ms"
	HeaderParts       = "Fb-Parts"    // answer to a question about the fleet: how many messages it has; absent means 1
	HeaderJob         = "Fb-Job"      // reply to a training request: the job's id, which is the body too
	HeaderPriority    = "Fb-Priority" // training, at the router's door: high, normal or low
	HeaderMsgID       = "Nats-Msg-Id"
)

// MetadataType is the content type of a question to a backend instead of its model: an
// inference with it and an empty body is answered with what the model server says of
// itself, byte for byte. A handler that knows nothing of the kind ends it as bad_request.
const MetadataType = "application/vnd.fleetbus.metadata"

// What became of an action that waited in the journal for its robot: the robot took it,
// to execute or to refuse it, or its caller withdrew it. Whoever settles it writes an entry
// under the subject of the action on the condition that the action is still the last one
// there, so exactly one of them does.
const (
	SettledTaken     = "taken"
	SettledWithdrawn = "withdrawn"
)

// maxHeaderText bounds what we carry of an error message or pass through of a
// content type or trace context, bytes.
const maxHeaderText = 1024

// maxAttempt is far above Task.MaxAttempts; it keeps the number of a stranger small.
const maxAttempt = 1_000_000

// NoDeadline is the time left of a request that has no deadline (a training job).
const NoDeadline = time.Duration(math.MaxInt64)

// Request is all of a request but its body.
type Request struct {
	ID          string
	Class       Class
	Task        string
	Origin      string
	Inbox       string // "" where nobody waits for a reply (jobs)
	Attempt     int    // from 1
	Left        time.Duration
	Key         string      // "" where every observation counts
	Seq         uint64      // 0 where there is none
	Episode     string      // "" where there is none
	Inc         Incarnation // zero: whoever holds the task
	Stream      bool        // whoever asks takes partial results and progress
	ContentType string
	Traceparent string
}

// Header returns the request as NATS headers, all of it. Left is rounded down to whole
// milliseconds: time is never invented.
func (r Request) Header() Header { return new(Headers).Request(Subject{}, &r) }

// Request makes the headers of a request that goes out on s, see [Request.Header]. What the
// subject says is left out: each header costs both ends more than the rest of a small request.
func (w *Headers) Request(s Subject, r *Request) Header {
	w.reset()
	set := w.set
	set(HeaderID, r.ID)
	if r.Class != classOn(s) {
		set(HeaderClass, string(r.Class))
	}
	if r.Task != s.Task {
		set(HeaderTask, r.Task)
	}
	if r.Origin != s.Origin {
		set(HeaderOrigin, r.Origin)
	}
	set(HeaderInbox, r.Inbox)
	if r.Attempt != 1 { // which is what its absence means
		set(HeaderAttempt, strconv.Itoa(r.Attempt))
	}
	if r.Left != NoDeadline {
		set(HeaderLeft, strconv.FormatInt(max(0, r.Left.Milliseconds()), 10))
	}
	set(HeaderKey, r.Key)
	if r.Seq > 0 {
		set(HeaderSeq, strconv.FormatUint(r.Seq, 10))
	}
	set(HeaderEpisode, r.Episode)
	if !r.Inc.IsZero() {
		set(HeaderIncarnation, r.Inc.String())
	}
	if r.Stream {
		set(HeaderStream, yes)
	}
	set(HeaderType, r.ContentType)
	set(HeaderTrace, r.Traceparent)
	return w.h
}

// Headers makes headers in memory that it uses again: what it returns is good until the
// next call. Every request and every reply has some, so this counts. The zero value is
// ready to use, by one goroutine at a time.
type Headers struct {
	h      Header
	values []string
}

// usualHeaders is how many headers most messages have at most; a map of Go grows beyond
// that number.
const usualHeaders = 8

func (w *Headers) reset() {
	if w.h == nil {
		w.h, w.values = make(Header, usualHeaders), make([]string, 0, usualHeaders)
		return
	}
	clear(w.h)
	clear(w.values)
	w.values = w.values[:0]
}

// set sets a header; an empty one is left out.
func (w *Headers) set(k, v string) {
	if v == "" {
		return
	}
	w.values = append(w.values, v)
	n := len(w.values)
	w.h[k] = w.values[n-1 : n : n]
}

// Check returns the first thing wrong with r.
func (r Request) Check() error {
	if err := r.Class.Check(HeaderClass); err != nil {
		return err
	}
	for _, n := range []struct {
		field, value string
		needed       bool
	}{
		{HeaderID, r.ID, true}, {HeaderTask, r.Task, true}, {HeaderOrigin, r.Origin, true},
		{HeaderInbox, r.Inbox, false}, {HeaderKey, r.Key, false}, {HeaderEpisode, r.Episode, false},
	} {
		if n.needed || n.value != "" {
			if err := CheckName(n.field, n.value); err != nil {
				return err
			}
		}
	}
	for _, x := range []struct{ field, value string }{{HeaderType, r.ContentType}, {HeaderTrace, r.Traceparent}} {
		if oneLine(x.value) != x.value {
			return Errorf(CodeBadRequest, "%s: found %q, allowed is one line of at most %d bytes of UTF-8 without space around it", x.field, shorten(x.value), maxHeaderText)
		}
	}
	switch {
	case r.Attempt < 1 || r.Attempt > maxAttempt:
		return Errorf(CodeBadRequest, "%s: found %d, allowed are 1 to %d", HeaderAttempt, r.Attempt, maxAttempt)
	case r.Class == Action && r.Left == NoDeadline:
		return Errorf(CodeBadRequest, "%s: an action needs a deadline; none found", HeaderLeft)
	case r.Class == Action && (r.Episode == "" || r.Seq == 0):
		return Errorf(CodeBadRequest, "%s, %s: an action needs an episode and a sequence from 1, found %q and %d", HeaderEpisode, HeaderSeq, r.Episode, r.Seq)
	}
	return nil
}

// Job makes the headers of a job, which its subject says the rest of, see [ParseJob].
func (w *Headers) Job(r *Request) Header {
	w.reset()
	for _, h := range [...]struct{ k, v string }{{HeaderInbox, r.Inbox}, {HeaderKey, r.Key}, {HeaderType, r.ContentType}, {HeaderTrace, r.Traceparent}} {
		w.set(h.k, h.v)
	}
	return w.h
}

// ParseJob reads a job from its subject and its headers. What the subject says need not stand
// in the headers; where it does, it must be the same. Unknown headers are ignored.
func ParseJob(s Subject, h Header) (Request, error) {
	if s.Kind != KindJob {
		return Request{}, Errorf(CodeBadRequest, "subject kind %q is not that of a job", shorten(string(s.Kind)))
	}
	g := headerReader{h: h}
	r := Request{ID: s.ID, Class: Training, Task: s.Task, Origin: s.Origin, Left: NoDeadline, Attempt: int(g.number(HeaderAttempt, 1, maxAttempt)),
		Inbox: g.text(HeaderInbox), Key: g.text(HeaderKey), ContentType: g.text(HeaderType), Traceparent: g.text(HeaderTrace)}
	if len(h[HeaderLeft]) > 0 {
		r.Left = time.Duration(g.number(HeaderLeft, 0, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
	}
	for _, x := range [...]struct{ key, want string }{{HeaderID, s.ID}, {HeaderClass, string(Training)}, {HeaderTask, s.Task}, {HeaderOrigin, s.Origin}} {
		g.same(x.key, x.want)
	}
	if g.err != nil {
		return Request{}, g.err
	}
	return r, r.Check()
}

// classOn is the class of a request that does not say its own; "" where the subject does not
// tell it either.
func classOn(s Subject) Class {
	switch s.Kind {
	case KindDo: // an action has to say that it is one
		return Inference
	case KindIntent, KindQueued:
		return Action
	}
	return s.Class
}

// ParseRequest reads a request from the subject that it came on and its headers. What the
// subject says need not stand in the headers; where it does, it must be the same: permissions
// guard the subject alone. Without a subject, the zero one, the headers have to say all.
// Unknown headers are ignored; a malformed one is an error with code bad_request that
// names it.
func ParseRequest(s Subject, h Header) (Request, error) {
	g := headerReader{h: h}
	class := classOn(s)
	if s.Kind == KindDo && len(h[HeaderClass]) > 0 {
		class = "" // the header's word counts
	}
	r := Request{
		ID: g.text(HeaderID), Class: Class(g.same(HeaderClass, string(class))), Task: g.same(HeaderTask, s.Task), Origin: g.same(HeaderOrigin, s.Origin),
		Inbox: g.text(HeaderInbox), Key: g.text(HeaderKey), Episode: g.text(HeaderEpisode),
		ContentType: g.text(HeaderType), Traceparent: g.text(HeaderTrace),
		Seq: g.number(HeaderSeq, 0, math.MaxUint64), Attempt: int(g.number(HeaderAttempt, 1, maxAttempt)), Left: NoDeadline,
	}
	if len(h[HeaderLeft]) > 0 {
		r.Left = time.Duration(g.number(HeaderLeft, 0, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
	}
	if s := g.text(HeaderIncarnation); s != "" {
		inc, err := ParseFence(s)
		if err != nil {
			g.fail(HeaderIncarnation, s, "<epoch>-<revision>")
		}
		r.Inc = inc
	}
	r.Stream = g.flag(HeaderStream)
	if g.err != nil {
		return Request{}, g.err
	}
	return r, r.Check()
}

// headerReader reads headers and keeps the first error.
type headerReader struct {
	h   Header
	err error
}

func (g *headerReader) fail(key, found, want string) {
	if g.err == nil {
		g.err = Errorf(CodeBadRequest, "header %s: found %q, expected %s", key, shorten(found), want)
	}
}

func (g *headerReader) text(key string) string {
	v := g.h[key]
	if len(v) == 0 {
		return ""
	}
	if len(v) > 1 || len(v[0]) > maxHeaderText {
		g.fail(key, v[0], "one value of at most "+strconv.Itoa(maxHeaderText)+" bytes")
		return ""
	}
	return v[0]
}

// same reads what the subject says too, unless said is "": the header may be absent, but not
// differ.
func (g *headerReader) same(key, said string) string {
	if said == "" {
		return g.text(key)
	}
	if len(g.h[key]) > 0 && g.text(key) != said {
		g.fail(key, g.h[key][0], said+", as in the subject, or no such header")
	}
	return said
}

// yes is the value of a header that only says yes; where it does not, it is left out.
const yes = "1"

func (g *headerReader) flag(key string) bool {
	s := g.text(key)
	if s != "" && s != yes {
		g.fail(key, s, yes+", or no such header")
	}
	return s == yes
}

// number reads a decimal number; an absent header is def.
func (g *headerReader) number(key string, def, most uint64) uint64 {
	s := g.text(key)
	if s == "" {
		return def
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > most {
		g.fail(key, s, "a whole number from 0 to "+strconv.FormatUint(most, 10))
		return def
	}
	return n
}
