package messages

import (
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func fullRequest() Request {
	return Request{
		ID: "a1", Class: Action, Task: "hold", Origin: "lab", Inbox: "x1", Attempt: 2, Left: 1500 * time.Millisecond, Key: "cam-1",
		Seq: 12, Episode: "ep-7", Inc: aFence, Stream: true, ContentType: "application/json", Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
}

func TestRequestHeaders(t *testing.T) {
	want := Header{
		"Fb-Id": {"a1"}, "Fb-Class": {"action"}, "Fb-Task": {"hold"}, "Fb-Origin": {"lab"}, "Fb-Inbox": {"x1"}, "Fb-Attempt": {"2"},
		"Fb-Left-Ms": {"1500"}, "Fb-Key": {"cam-1"}, "Fb-Seq": {"12"}, "Fb-Episode": {"ep-7"}, "Fb-Incarnation": {"1795000000123456789-42"},
		"Fb-Stream": {"1"}, "Content-Type": {"application/json"}, "traceparent": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
	}
	r := fullRequest()
	if got := r.Header(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	h := r.Header()
	h["X-Of-Somebody-Else"] = []string{"a", "b"}
	if got, err := ParseRequest(Subject{}, h); err != nil || got != r {
		t.Errorf("parsed %+v, %v", got, err)
	}
	job := Request{ID: "j1", Class: Training, Task: "train", Origin: "lab", Attempt: 1, Left: NoDeadline}
	if got, err := ParseRequest(Subject{}, job.Header()); err != nil || got != job {
		t.Errorf("parsed %+v, %v", got, err)
	}
	if len(job.Header()) != 4 {
		t.Errorf("what is absent has no header: %v", job.Header())
	}
}

// What the subject says is not said again; where it is, it must be the same.
func TestRequestOnSubject(t *testing.T) {
	see := Request{ID: "a1", Class: Inference, Task: "detect", Origin: "lab", Inbox: "x1", Attempt: 1, Left: time.Second}
	keyed := see
	keyed.Key = "cam-1"
	action := fullRequest()
	straight := Subject{Kind: KindDo, Agent: "edge-1", Origin: "lab", Task: "detect"}
	act := Subject{Kind: KindDo, Agent: "r1", Origin: "lab", Task: "hold"}
	queue := func(id string) Subject {
		return Subject{Kind: KindWork, Class: Inference, Task: "detect", Origin: "lab", ID: id}
	}
	intent := Subject{Kind: KindIntent, Agent: "r1", Origin: "lab", ID: "a1"}
	queued := Subject{Kind: KindQueued, Agent: "r1", Origin: "lab", ID: "a1"}
	for _, c := range []struct {
		s    Subject
		r    Request
		left string // out
	}{
		{straight, see, "Fb-Class Fb-Task Fb-Origin"},
		{act, action, "Fb-Task Fb-Origin"},
		{queue("a1"), see, "Fb-Class Fb-Task Fb-Origin"},
		{queue("cam-1"), keyed, "Fb-Class Fb-Task Fb-Origin"},
		{intent, action, "Fb-Class Fb-Origin"},
		{queued, action, "Fb-Class Fb-Origin"},
	} {
		h, all := new(Headers).Request(c.s, &c.r), c.r.Header()
		for _, key := range strings.Fields(c.left) {
			if all[key] == nil || h[key] != nil {
				t.Errorf("%s: %s is said in %v", c.s, key, h)
			}
			delete(all, key)
		}
		if !reflect.DeepEqual(h, all) {
			t.Errorf("%s: got %v, want %v", c.s, h, all)
		}
		for _, said := range []Header{h, c.r.Header()} {
			if got, err := ParseRequest(c.s, said); err != nil || got != c.r {
				t.Errorf("%s %v: parsed %+v, %v", c.s, said, got, err)
			}
		}
		for _, key := range strings.Fields("Fb-Task Fb-Origin " + c.left) {
			if key == HeaderClass && c.s.Kind == KindDo || key == HeaderTask && c.s.Task == "" {
				continue // the subject does not say it
			}
			for _, v := range []string{"other", ""} {
				h := c.r.Header()
				h[key] = []string{v}
				if _, err := ParseRequest(c.s, h); CodeOf(err) != CodeBadRequest || !strings.Contains(err.Error(), "as in the subject, or no such header") {
					t.Errorf("%s with %s %q: %v", c.s, key, v, err)
				}
			}
		}
	}
	// Nothing is an action, or has a name, by default.
	for want, c := range map[string]struct {
		s Subject
		h Header
	}{
		"Fb-Id name":         {queue("cam-1"), nil},
		"expected action":    {intent, Header{HeaderClass: {"inference"}, HeaderTask: {"hold"}}},
		"an action needs":    {act, Header{HeaderID: {"a1"}, HeaderClass: {"action"}}},
		`Fb-Class: found ""`: {act, Header{HeaderID: {"a1"}, HeaderClass: {""}}},
	} {
		if got, err := ParseRequest(c.s, c.h); CodeOf(err) != CodeBadRequest || !strings.Contains(err.Error(), want) {
			t.Errorf("%s %v: %+v, %v, want %s", c.s, c.h, got, err, want)
		}
	}
	if got, err := ParseRequest(act, Header{HeaderID: {"a1"}, HeaderLeft: {"5"}, HeaderEpisode: {"e"}, HeaderSeq: {"1"}}); err != nil || got.Class != Inference {
		t.Errorf("without a class: %+v, %v", got, err)
	}
}

// Time left is rounded down, never below nothing.
func TestLeftIsNeverInvented(t *testing.T) {
	for left, want := range map[time.Duration]string{
		1999 * time.Microsecond: "1", 999 * time.Microsecond: "0", 0: "0", -time.Hour: "0", NoDeadline - 1: "9223372036854",
	} {
		r := fullRequest()
		r.Left = left
		if got := r.Header()[HeaderLeft]; len(got) != 1 || got[0] != want {
			t.Errorf("%v became %v, want %s", left, got, want)
		}
	}
}

func TestParseRequestRefuses(t *testing.T) {
	for _, tc := range []struct {
		header, value, want string
	}{
		{HeaderID, "", "Fb-Id name"},
		{HeaderID, "a.b", "Fb-Id name"},
		{HeaderID, "a b", "Fb-Id name"},
		{HeaderTask, "*", "Fb-Task name"},
		{HeaderOrigin, ">", "Fb-Origin name"},
		{HeaderInbox, "a.b", "Fb-Inbox name"},
		{HeaderKey, strings.Repeat("k", 65), "Fb-Key name"},
		{HeaderEpisode, "*", "Fb-Episode name"},
		{HeaderClass, "dreaming", `Fb-Class: found "dreaming"`},
		{HeaderAttempt, "0", "Fb-Attempt: found 0"},
		{HeaderAttempt, "-1", `Fb-Attempt: found "-1"`},
		{HeaderAttempt, "1000001", "a whole number from 0 to 1000000"},
		{HeaderLeft, "1.5", `Fb-Left-Ms: found "1.5"`},
		{HeaderLeft, "-3", `Fb-Left-Ms: found "-3"`},
		{HeaderLeft, "9223372036855", "a whole number from 0 to 9223372036854"},
		{HeaderLeft, "1e3", `Fb-Left-Ms: found "1e3"`},
		{HeaderSeq, "18446744073709551616", "Fb-Seq: found"},
		{HeaderSeq, "0", "an episode and a sequence from 1"},
		{HeaderEpisode, "", "an episode and a sequence from 1"},
		{HeaderStream, "true", `found "true", expected 1`},
		{HeaderIncarnation, "7", "expected <epoch>-<revision>"},
		{HeaderType, strings.Repeat("x", maxHeaderText+1), "one value of at most 1024 bytes"},
		{HeaderTrace, strings.Repeat("x", 1<<20), "one value of at most 1024 bytes"},
	} {
		h := fullRequest().Header()
		h[tc.header] = []string{tc.value}
		_, err := ParseRequest(Subject{}, h)
		if CodeOf(err) != CodeBadRequest || !strings.Contains(err.Error(), tc.want) || len(err.Error()) > 500 {
			t.Errorf("%s %q: %v, want %s", tc.header, shorten(tc.value), err, tc.want)
		}
	}
	twice := fullRequest().Header()
	twice[HeaderID] = []string{"a1", "a2"}
	if _, err := ParseRequest(Subject{}, twice); CodeOf(err) != CodeBadRequest {
		t.Errorf("two ids: %v", err)
	}
	none := fullRequest().Header()
	delete(none, HeaderLeft)
	if _, err := ParseRequest(Subject{}, none); err == nil || !strings.Contains(err.Error(), "an action needs a deadline") {
		t.Errorf("an action without a deadline: %v", err)
	}
	if _, err := ParseRequest(Subject{}, nil); CodeOf(err) != CodeBadRequest {
		t.Errorf("no headers: %v", err)
	}
}

// What passes Check can be read by whoever receives it.
func TestRequestCheckSeesWhatHeadersCannotCarry(t *testing.T) {
	for _, change := range []func(*Request){
		func(r *Request) { r.Attempt = 1_000_001 },
		func(r *Request) { r.ContentType = strings.Repeat("x", maxHeaderText+1) },
		func(r *Request) { r.Traceparent = strings.Repeat("x", maxHeaderText+1) },
		func(r *Request) { r.ContentType = "text/plain\r\nFb-Task: other" },
		func(r *Request) { r.Traceparent = "a\nb" },
		func(r *Request) { r.ContentType = " text/plain" },
	} {
		r := fullRequest()
		change(&r)
		if err := r.Check(); CodeOf(err) != CodeBadRequest {
			t.Errorf("%+v passes: %v", r, err)
		}
	}
}

func TestReplyHeaders(t *testing.T) {
	ok := Reply{
		Kind: ReplyResult, ID: "a1", Attempt: 2, Agent: "edge-1", Inc: aFence, Service: 10_250 * time.Microsecond, ContentType: "image/png", Job: "j1",
	}
	want := Header{
		"Fb-Kind": {"result"}, "Fb-Id": {"a1"}, "Fb-Attempt": {"2"}, "Fb-Agent": {"edge-1"}, "Fb-Incarnation": {"1795000000123456789-42"},
		"Fb-Service-Us": {"10250"}, "Content-Type": {"image/png"}, "Fb-Job": {"j1"},
	}
	if got := ok.Header(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	bad := Reply{Kind: ReplyResult, ID: "a1", Attempt: 1, Agent: "edge-1", Err: &Error{CodeBusy, "all 4 slots are taken", 250 * time.Millisecond}}
	if h := bad.Header(); h[HeaderError][0] != "busy" || h[HeaderErrorText][0] != "all 4 slots are taken" || h[HeaderRetryAfter][0] != "250" {
		t.Errorf("got %v", h)
	}
	for _, r := range []Reply{ok, bad, {Kind: ReplyAccepted, ID: "a1"}, {Kind: ReplyProgress, ID: "a1", Attempt: 1}} {
		if got, err := ParseReply(r.Header()); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("parsed %+v, %v\nwant %+v", got, err, r)
		}
	}
}

func TestParseReply(t *testing.T) {
	base := func(h Header) Header {
		r := Header{HeaderKind: {"result"}, HeaderID: {"a1"}}
		for k, v := range h {
			r[k] = v
		}
		return r
	}
	for _, tc := range []struct {
		change Header
		want   string
	}{
		{Header{HeaderKind: {""}}, "accepted, progress or result"},
		{Header{HeaderKind: {"maybe"}}, "accepted, progress or result"},
		{Header{HeaderID: {"a.b"}}, "Fb-Id name"},
		{Header{HeaderAgent: {"*"}}, "Fb-Agent name"},
		{Header{HeaderAttempt: {"x"}}, "Fb-Attempt"},
		{Header{HeaderService: {"-1"}}, "Fb-Service-Us"},
		{Header{HeaderService: {"9223372036854776"}}, "Fb-Service-Us"},
		{Header{HeaderIncarnation: {"x"}}, "Fb-Incarnation"},
		{Header{HeaderError: {"busy"}, HeaderRetryAfter: {"soon"}}, "Fb-Retry-After-Ms"},
		{Header{HeaderError: {"busy", "stale"}}, "Fb-Error"},
	} {
		if _, err := ParseReply(base(tc.change)); CodeOf(err) != CodeBadRequest || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: %v, want %s", tc.change, err, tc.want)
		}
	}
	if r, err := ParseReply(Header{HeaderID: {"a1"}}); err != nil || r.Kind != ReplyResult {
		t.Errorf("without a kind: %+v, %v", r, err)
	}
	// A newer program's code stays readable, and nobody acts on an advice that is not known.
	r, err := ParseReply(base(Header{HeaderError: {"too_hot"}, HeaderErrorText: {"90 °C"}}))
	if err != nil || r.Err.Code != CodeInternal || r.Err.Message != "too_hot: 90 °C" {
		t.Errorf("parsed %+v, %v", r.Err, err)
	}
	if r, err = ParseReply(base(Header{HeaderService: {"9223372036854775"}})); err != nil || r.Service < 0 {
		t.Errorf("parsed %+v, %v", r, err)
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "",
		"fine":                    "fine",
		"a\r\nFb-Error: busy":     "a  Fb-Error: busy",
		"\t tab \x00 nul \x7f":    "tab   nul",
		"bad \xff utf-8":          "bad ? utf-8",
		"ünï":                     "ünï",
		strings.Repeat("x", 1024): strings.Repeat("x", 1024),
		strings.Repeat("x", 1025): strings.Repeat("x", 1021) + "…",
		strings.Repeat("é", 600):  strings.Repeat("é", 510) + "…",
	} {
		if got := oneLine(in); got != want || len(got) > maxHeaderText {
			t.Errorf("oneLine(%q) = %q", shorten(in), shorten(got))
		}
	}
}

// What a handler says of itself cannot make its answer unreadable.
func TestReplyPassesWhateverAHandlerSays(t *testing.T) {
	r := Reply{Kind: ReplyResult, ID: "a1", ContentType: strings.Repeat("x", 5000) + "\r\nFb-Error: busy", Service: math.MaxInt64,
		Err: &Error{Code: CodeBackendFailed, Message: "line one\nline two"}}
	got, err := ParseReply(r.Header())
	if err != nil || got.Err.Message != "line one line two" || len(got.ContentType) > maxHeaderText {
		t.Errorf("parsed %+v, %v", got, err)
	}
}
