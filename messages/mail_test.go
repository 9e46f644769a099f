package messages

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestMailHeaders(t *testing.T) {
	for _, m := range []Mail{
		{ID: "a1", Left: NoDeadline},
		{ID: "a1", Life: aFence, Seq: 7, Left: 1500 * time.Millisecond, ContentType: "text/plain", Traceparent: "00-1-2-00"},
		{ID: "a1", Life: aFence, Seq: 1, Left: 0},
	} {
		if got, err := ParseMail(m.Header()); err != nil || got != m {
			t.Errorf("%+v, %v, want %+v", got, err, m)
		}
	}
	for _, r := range []MailReply{
		{ID: "a1", State: MailDelivered}, {ID: "a1", State: MailWaiting}, {ID: "a1", State: MailExpired},
		{ID: "a1", State: MailRefused, Err: Errorf(CodeBadRequest, "no such hall")},
		{ID: "a1", Err: &Error{Code: CodeBusy, Message: "later", RetryAfter: time.Second}},
	} {
		if got, err := ParseMailReply(r.Header()); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%+v, %v, want %+v", got, err, r)
		}
	}
	if r, err := ParseMailReply(nil); err != nil || r.State != MailDelivered {
		t.Errorf("an answer without headers: %+v %v", r, err)
	}
	if r, err := ParseMailReply(Header{HeaderKind: {"refused"}}); err != nil || r.Err == nil {
		t.Errorf("refused without a reason: %+v %v", r, err)
	}
}

func FuzzMail(f *testing.F) {
	f.Add("a1", "1-2", "3", "400", "text/plain", "delivered", "busy", "why", "50")
	f.Add("", "-", "-1", "x", strings.Repeat("x", 2000), "maybe", "none", "\n", "-")
	names := []string{HeaderID, HeaderIncarnation, HeaderSeq, HeaderLeft, HeaderType, HeaderKind, HeaderError, HeaderErrorText, HeaderRetryAfter}
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g, h, i, j string) {
		header := Header{}
		for x, v := range []string{a, b, c, d, e, g, h, i, j} {
			if v != "" {
				header[names[x]] = []string{v}
			}
		}
		if m, err := ParseMail(header); err == nil {
			first := m.Header()
			if again, err := ParseMail(first); err != nil || !reflect.DeepEqual(again.Header(), first) || m.Left < 0 {
				t.Fatalf("another round: %+v %v, want %+v", again, err, m)
			}
		} else if CodeOf(err) != CodeBadRequest {
			t.Fatal(err)
		}
		if r, err := ParseMailReply(header); err == nil {
			first := r.Header()
			if again, err := ParseMailReply(first); err != nil || !reflect.DeepEqual(again.Header(), first) || r.State == "" && r.Err == nil {
				t.Fatalf("another round: %+v %v, want %+v", again, err, r)
			}
		} else if CodeOf(err) != CodeBadRequest {
			t.Fatal(err)
		}
	})
}
