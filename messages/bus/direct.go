package bus

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
)

// Stored is a message as a stream has it.
type Stored struct {
	Subject string
	Seq     uint64
	Time    time.Time // the server's clock
	Data    []byte
}

// directQuestion is what a server is asked for in one go; a server that has a copy of the
// stream answers, without a consumer: of those a stream has 1,000 by default, and a fleet
// more agents.
type directQuestion struct {
	Seq       uint64   `json:"seq,omitempty"`
	Next      string   `json:"next_by_subj,omitempty"`
	MultiLast []string `json:"multi_last,omitempty"`
	Batch     int      `json:"batch,omitempty"`
	MaxBytes  int      `json:"max_bytes,omitempty"`
}

// Statuses of the answers that are no messages.
const (
	statusEnd      = "204"
	statusNone     = "404"
	statusTooMany  = "413"
	statusNobody   = "503"
	headerStatus   = "Status"
	headerSubject  = "Nats-Subject"
	headerSequence = "Nats-Sequence"
	headerTime     = "Nats-Time-Stamp"
)

// direct asks a stream and calls use with each message of the answer, in the stream's
// order, as far as the limits of the question go.
func (b *Bus) direct(ctx context.Context, stream string, q directQuestion, use func(Stored) error) error {
	tried := "read from stream " + stream
	body, err := json.Marshal(q)
	if err != nil {
		return Explain(err, tried)
	}
	inbox := b.Conn.NewInbox()
	sub, err := b.Conn.SubscribeSync(inbox)
	if err != nil {
		return Explain(err, tried)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	if err := b.Conn.PublishRequest(b.api()+".DIRECT.GET."+stream, inbox, body); err != nil {
		return Explain(err, tried)
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return Explain(err, tried)
		}
		switch status := m.Header.Get(headerStatus); status {
		case "":
		case statusEnd:
			return nil
		case statusNone:
			return nil
		case statusNobody:
			return Explain(nats.ErrNoResponders, tried)
		case statusTooMany:
			return messages.Errorf(messages.CodeInternal, "%s: more entries than a server gives in one answer (1,024)", tried)
		default:
			return messages.Errorf(messages.CodeUnavailable, "%s: the server answered %s %s", tried, status, m.Header.Get("Description"))
		}
		s := Stored{Subject: m.Header.Get(headerSubject), Data: m.Data}
		if s.Seq, err = strconv.ParseUint(m.Header.Get(headerSequence), 10, 64); err == nil {
			s.Time, err = time.Parse(time.RFC3339Nano, m.Header.Get(headerTime))
		}
		if err != nil {
			return Explain(err, tried)
		}
		if err := use(s); err != nil {
			return err
		}
	}
}

// api is the prefix of the JetStream API.
func (b *Bus) api() string {
	if domain := b.JS.Options().Domain; domain != "" {
		return "$JS." + domain + ".API"
	}
	return "$JS.API"
}
