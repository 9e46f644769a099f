package messages

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// fuzzMessage checks a decoder: whatever the bytes, it returns an error with code
// bad_request or a message that survives another round unchanged.
func fuzzMessage[T any, P interface {
	*T
	Message
}](f *testing.F) {
	for _, s := range samples() {
		if _, ok := s.want.(P); ok {
			f.Add(golden(f, s.golden, nil))
		}
	}
	for _, data := range hostile() {
		if len(data) < 4096 { // the corpus is mutated: large seeds only slow it down
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := P(new(T))
		if err := Decode(data, m); err != nil {
			if CodeOf(err) != CodeBadRequest || strings.ContainsAny(err.Error(), "\r\n") {
				t.Fatalf("not a bad_request of one line: %q", err)
			}
			return
		}
		first, err := Encode(m)
		if CodeOf(err) == CodePayloadTooLarge {
			return // absent keys were filled in
		}
		if err != nil {
			t.Fatal(err)
		}
		again := P(new(T))
		if err := Decode(first, again); err != nil {
			t.Fatalf("what we decoded and encoded we cannot decode: %v\n%x", err, first)
		}
		second, err := Encode(again)
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("another round changed it: %v\n%x\n%x", err, first, second)
		}
	})
}

func FuzzHeartbeat(f *testing.F)    { fuzzMessage[Heartbeat](f) }
func FuzzGoodbye(f *testing.F)      { fuzzMessage[Goodbye](f) }
func FuzzUnreached(f *testing.F)    { fuzzMessage[Unreached](f) }
func FuzzClaim(f *testing.F)        { fuzzMessage[Claim](f) }
func FuzzRegistration(f *testing.F) { fuzzMessage[Registration](f) }
func FuzzPlacement(f *testing.F)    { fuzzMessage[Placement](f) }
func FuzzPlacementAck(f *testing.F) { fuzzMessage[PlacementAck](f) }
func FuzzRoutes(f *testing.F)       { fuzzMessage[Routes](f) }
func FuzzSettings(f *testing.F)     { fuzzMessage[Settings](f) }
func FuzzTaskEntry(f *testing.F)    { fuzzMessage[TaskEntry](f) }
func FuzzDrainEntry(f *testing.F)   { fuzzMessage[DrainEntry](f) }
func FuzzLease(f *testing.F)        { fuzzMessage[Lease](f) }
func FuzzEvent(f *testing.F)        { fuzzMessage[Event](f) }
func FuzzQuestion(f *testing.F)     { fuzzMessage[Question](f) }
func FuzzExplanation(f *testing.F)  { fuzzMessage[Explanation](f) }
func FuzzState(f *testing.F)        { fuzzMessage[State](f) }
func FuzzJob(f *testing.F)          { fuzzMessage[Job](f) }
func FuzzProgress(f *testing.F)     { fuzzMessage[Progress](f) }
func FuzzOutcome(f *testing.F)      { fuzzMessage[Outcome](f) }
func FuzzProbe(f *testing.F)        { fuzzMessage[Probe](f) }
func FuzzStopOrder(f *testing.F)    { fuzzMessage[StopOrder](f) }
func FuzzStopAck(f *testing.F)      { fuzzMessage[StopAck](f) }
func FuzzLatch(f *testing.F)        { fuzzMessage[Latch](f) }

// FuzzScan compares scan with the library that it stands before: what scan lets through,
// the library reads to the last byte.
func FuzzScan(f *testing.F) {
	for _, s := range samples() {
		f.Add(golden(f, s.golden, nil))
	}
	for _, data := range hostile() {
		if len(data) < 4096 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > MaxControl || scan(data, true) != nil {
			return
		}
		r := bytes.NewReader(data)
		if err := msgpack.NewDecoder(r).Skip(); err != nil || r.Len() > 0 {
			t.Fatalf("scan passed what the library does not read: %v, %d bytes left", err, r.Len())
		}
	})
}

// FuzzSubject: a subject that we parse is the one that we build.
func FuzzSubject(f *testing.F) {
	for _, k := range kinds() {
		f.Add(subjectOf(k).String())
		f.Add(Subject{Kind: k}.String())
	}
	f.Add("fb.demo.main.req.action.lab.hold")
	f.Add("fb.demo._fleet.routes")
	f.Fuzz(func(t *testing.T, subject string) {
		s, err := ParseSubject(subject)
		if err != nil {
			if CodeOf(err) != CodeBadRequest || s != (Subject{}) || strings.ContainsAny(err.Error(), "\r\n") {
				t.Fatalf("%+v, %q", s, err)
			}
			return
		}
		if s.String() != subject {
			t.Fatalf("%q became %q", subject, s.String())
		}
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzSubjectBuild: a subject that passes Check is parsed to the same fields.
func FuzzSubjectBuild(f *testing.F) {
	for i := range kinds() {
		f.Add(i, "demo", "main", "edge-1", "lab", "inference", "detect", "a1")
	}
	f.Add(0, "demo", "_fleet", "routes", "res", "action", "req", "hb")
	f.Add(1, "a.b", "*", ">", "", " ", "__", "\x00")
	f.Fuzz(func(t *testing.T, kind int, fleet, site, agent, origin, class, task, id string) {
		all := kinds()
		k := all[uint(kind)%uint(len(all))]
		s := Subject{Kind: k, Fleet: fleet, Site: site}
		for _, token := range layout(k) {
			if p := s.field(token); p != nil {
				*p = map[string]string{"{agent}": agent, "{origin}": origin, "{class}": class, "{task}": task, "{id}": id}[token]
			}
		}
		if s.Check() != nil {
			return
		}
		text := s.String()
		if strings.ContainsAny(text, " *>\t\r\n\x00") || len(text) > 512 {
			t.Fatalf("%q passed Check", text)
		}
		if got, err := ParseSubject(text); err != nil || got != s {
			t.Fatalf("%q parsed to %+v, %v, want %+v", text, got, err, s)
		}
	})
}

func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"a", "robot-1", "a__b", "_fleet", "a.b", "*", "\xff", strings.Repeat("x", 65)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		err := CheckName("x", name)
		if err == nil && (len(name) == 0 || len(name) > MaxName || strings.ContainsAny(name, ".*> \t\r\n/$\x00") || strings.Contains(name, "__")) {
			t.Fatalf("%q passed", name)
		}
		if err != nil && (len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\r\n")) {
			t.Fatalf("not one short line: %q", err)
		}
	})
}

func FuzzParseFence(f *testing.F) {
	for _, s := range []string{"0-0", "1-2", "-1-2", aFence.String(), "1-2-3", "+1-2", "01-2", "1", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := ParseFence(s); err == nil && got.String() != s {
			t.Fatalf("%q became %q", s, got)
		} else if err != nil && (CodeOf(err) != CodeBadRequest || !got.IsZero()) {
			t.Fatalf("%v, %v", got, err)
		}
	})
}

func FuzzParseReplica(f *testing.F) {
	for _, s := range []string{"detect/0", "hold/r1", "/", "a/b/c", "a", "a//b", "*/0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		task, suffix, err := ParseReplica(s)
		if err == nil && (ReplicaID(task, suffix) != s || CheckName("t", task) != nil || CheckName("s", suffix) != nil) {
			t.Fatalf("%q became %q and %q", s, task, suffix)
		}
	})
}

// FuzzParseRequest fuzzes every header of a request.
func FuzzParseRequest(f *testing.F) {
	f.Add("a1", "inference", "detect", "lab", "x1", "1", "1000", "cam-1", "7", "", "", "text/plain", "")
	f.Add("a1", "action", "hold", "lab", "x1", "2", "0", "", "12", "ep-7", aFence.String(), "", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	f.Add("j1", "training", "train", "lab", "", "", "", "", "", "", "", "", "")
	f.Add("", "x", "*", ">", "a.b", "-1", "1e9", " ", "18446744073709551616", "\x00", "1-", "\r\n", strings.Repeat("x", 2000))
	names := []string{HeaderID, HeaderClass, HeaderTask, HeaderOrigin, HeaderInbox, HeaderAttempt, HeaderLeft, HeaderKey, HeaderSeq, HeaderEpisode, HeaderIncarnation, HeaderType, HeaderTrace}
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g, h, i, j, k, l, m, n string) {
		header := Header{}
		for x, v := range []string{a, b, c, d, e, g, h, i, j, k, l, m, n} {
			if v != "" {
				header[names[x]] = []string{v}
			}
		}
		r, err := ParseRequest(Subject{}, header)
		if err != nil {
			if CodeOf(err) != CodeBadRequest || strings.ContainsAny(err.Error(), "\r\n") {
				t.Fatalf("not a bad_request of one line: %q", err)
			}
			return
		}
		if r.Left < 0 || r.Attempt < 1 {
			t.Fatalf("%+v", r)
		}
		if again, err := ParseRequest(Subject{}, r.Header()); err != nil || again != r {
			t.Fatalf("another round: %+v, %v, want %+v", again, err, r)
		}
	})
}

// FuzzParseReply fuzzes every header of a reply.
func FuzzParseReply(f *testing.F) {
	f.Add("result", "a1", "1", "edge-1", aFence.String(), "10250", "busy", "all slots are taken", "250", "image/png", "")
	f.Add("accepted", "a1", "", "edge-1", "", "", "", "", "", "", "")
	f.Add("result", "a1", "2", "edge-1", "", "", "too_hot", "90 °C\r\n", "", "", "j1")
	f.Add("maybe", "*", "-1", ">", "1-", "x", " ", "\x00", "9223372036854775807", strings.Repeat("x", 2000), "a.b")
	names := []string{HeaderKind, HeaderID, HeaderAttempt, HeaderAgent, HeaderIncarnation, HeaderService, HeaderError, HeaderErrorText, HeaderRetryAfter, HeaderType, HeaderJob}
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g, h, i, j, k, l string) {
		header := Header{}
		for x, v := range []string{a, b, c, d, e, g, h, i, j, k, l} {
			if v != "" {
				header[names[x]] = []string{v}
			}
		}
		r, err := ParseReply(header)
		if err != nil {
			if CodeOf(err) != CodeBadRequest || strings.ContainsAny(err.Error(), "\r\n") {
				t.Fatalf("not a bad_request of one line: %q", err)
			}
			return
		}
		if r.Service < 0 || r.Err != nil && (r.Err.RetryAfter < 0 || !r.Err.Code.Known()) {
			t.Fatalf("%+v", r)
		}
		first := r.Header()
		again, err := ParseReply(first)
		if err != nil || !reflect.DeepEqual(again.Header(), first) {
			t.Fatalf("another round: %+v, %v, want %+v", again, err, r)
		}
	})
}
