package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What NATS says becomes a code and one line that says what was tried and what to do.
func TestExplain(t *testing.T) {
	ours := messages.Errorf(messages.CodeStale, "old")
	for _, tc := range []struct {
		err  error
		code messages.Code
		want string
	}{
		{nats.ErrNoServers, messages.CodeUnavailable, "fleetbus up"},
		{nats.ErrAuthorization, messages.CodeUnauthorized, "--creds"},
		{errors.New("nats: Authorization Violation"), messages.CodeUnauthorized, "--creds"},
		{fmt.Errorf("x: %w", nats.ErrPermissionViolation), messages.CodeUnauthorized, "permissions"},
		{jetstream.ErrJetStreamNotEnabled, messages.CodeUnavailable, "nats-server -js"},
		{nats.ErrNoResponders, messages.CodeUnavailable, "doctor"},
		{nats.ErrMaxPayload, messages.CodePayloadTooLarge, "max_payload"},
		{nats.ErrTimeout, messages.CodeUnavailable, "try again"},
		{context.DeadlineExceeded, messages.CodeUnavailable, "try again"},
		{context.Canceled, messages.CodeCanceled, "canceled"},
		{nats.ErrConnectionReconnecting, messages.CodeUnavailable, "reconnects by itself"},
		{nats.ErrReconnectBufExceeded, messages.CodeUnavailable, "reconnects by itself"},
		{&jetstream.APIError{ErrorCode: jetstream.JSErrCodeStreamWrongLastSequence, Description: "wrong"}, messages.CodeConflict, "read it again"},
		{&jetstream.APIError{ErrorCode: jetstream.JSErrCodeStreamWrongLastSequenceConstant, Description: "wrong"}, messages.CodeConflict, "read it again"},
		{&jetstream.APIError{ErrorCode: 10047, Description: "insufficient storage"}, messages.CodeUnavailable, "insufficient storage"},
		{errors.New("what is this"), messages.CodeInternal, "what is this"},
	} {
		err := Explain(tc.err, "open the door")
		if messages.CodeOf(err) != tc.code || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "open the door") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v became %v, want code %s and %q", tc.err, err, tc.code, tc.want)
		}
	}
	if err := Explain(nil, "x"); err != nil {
		t.Errorf("nil became %v", err)
	}
	if err := Explain(fmt.Errorf("wrapped: %w", ours), "x"); !errors.Is(err, &messages.Error{Code: messages.CodeStale}) {
		t.Errorf("our own error became %v", err)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"nats://hub:4222":                            "nats://hub:4222",
		"nats://me:secret@hub:4222":                  "nats://***@hub:4222",
		"nats://token@hub:4222,tls://a:b@other:4222": "nats://***@hub:4222,tls://***@other:4222",
		"me:se@cret@hub":                             "***@hub",
		"nats://me:p%40ss@hub:4222,nats://open:4222": "nats://***@hub:4222,nats://open:4222",
		"": "",
	} {
		if got := Redact(in); got != want {
			t.Errorf("Redact(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestReconnectDelay(t *testing.T) {
	for _, attempts := range []int{-1, 0, 1, 2, 5, 6, 100, 1 << 30} {
		d := reconnectDelay(attempts)
		if d < 100*time.Millisecond || d > 3*time.Second {
			t.Errorf("after %d attempts: %v", attempts, d)
		}
	}
	if reconnectDelay(100) < 2*time.Second {
		t.Error("the delay does not grow to 2 s")
	}
}

func TestPullRequest(t *testing.T) {
	var got struct {
		Expires   time.Duration `json:"expires"`
		Batch     int           `json:"batch"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
		Group     string        `json:"group"`
		Priority  int           `json:"priority"`
	}
	data := PullRequest([]byte("+NXT "), 7, 3)
	if err := json.Unmarshal(data[len("+NXT "):], &got); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	if got.Expires != PullExpires || got.Batch != 7 || got.Heartbeat != PullHeartbeat || got.Group != Group || got.Priority != 3 {
		t.Errorf("%s", data)
	}
	// The server refuses a heartbeat that is more than half of the expiry.
	if 2*PullHeartbeat > PullExpires {
		t.Error("the heartbeat is too slow for the expiry")
	}
	if got := string(NakDelay(1500 * time.Millisecond)); got != `-NAK {"delay":1500000000}` {
		t.Error(got)
	}
}

// Two fleets, sites or classes never share a stream or a bucket: names cannot contain
// what joins them.
func TestNamesAreDistinct(t *testing.T) {
	seen := map[string]string{}
	note := func(name, what string) {
		if other, ok := seen[name]; ok {
			t.Errorf("%s and %s are both called %s", what, other, name)
		}
		seen[name] = what
		if strings.ContainsAny(name, ".*> ") {
			t.Errorf("%s: %q is no name for a stream", what, name)
		}
	}
	names := []string{"a", "a-b", "a_b", "b", "main", "events", "inference"}
	for _, fleet := range names {
		note(EventStreamName(fleet), "events of "+fleet)
		for _, b := range Buckets() {
			note("KV_"+BucketName(fleet, b), string(b)+" of "+fleet)
		}
		for _, site := range names {
			for _, c := range []messages.Class{messages.Inference, messages.Training, messages.Action} {
				note(StreamName(fleet, site, c), fmt.Sprintf("%s in %s of %s", c, site, fleet))
			}
		}
	}
}
