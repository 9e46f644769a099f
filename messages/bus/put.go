package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// PubAck reads a stream's answer to a message: the sequence at which it is stored, or the
// stream's error as it is, a [*jetstream.APIError] or one of no responders.
func PubAck(m *nats.Msg) (seq uint64, err error) {
	if noResponders(m) {
		return 0, jetstream.ErrNoStreamResponse
	}
	// A job waits for two of these; the usual ones are {"stream":"…", "seq":…} and are read here.
	const key = `"seq":`
	if i := bytes.Index(m.Data, []byte(key)); i > 0 && !bytes.Contains(m.Data, []byte(`"error"`)) {
		for _, c := range m.Data[i+len(key):] {
			if c < '0' || c > '9' {
				break
			}
			seq = seq*10 + uint64(c-'0')
		}
		if seq > 0 {
			return seq, nil
		}
	}
	var answer struct {
		Seq   uint64              `json:"seq"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil || answer.Error == nil {
		return 0, messages.Errorf(messages.CodeUnavailable, "the stream's answer is no acknowledgement")
	}
	return 0, answer.Error
}

// Puts writes to streams and buckets, many at a time, over one inbox: the client library
// takes several timers and a subscription's bookkeeping for each write. The zero value with
// Conn set is ready to use; the methods may be called from many goroutines.
type Puts struct {
	Conn *nats.Conn

	mu      sync.Mutex
	prefix  string
	sub     *nats.Subscription
	last    uint64
	waiting map[string]chan *nats.Msg
}

// Put publishes a message on the condition that the last one of its subject has a sequence
// (0: there is none), and returns the sequence at which it is stored. It waits for at most
// limit, until ctx ends, or until wake, which may be nil: an answer that was lost with a
// connection does not come. The stream's own error is returned as it is; after every other
// one it is open whether the message is stored.
func (p *Puts) Put(ctx context.Context, limit time.Duration, wake <-chan struct{}, subject string, data []byte, last uint64) (uint64, error) {
	token, answer, err := p.enter()
	if err != nil {
		return 0, err
	}
	defer p.leave(token)
	m := nats.Msg{Subject: subject, Reply: p.prefix + token, Data: data,
		Header: nats.Header{jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(last, 10)}}}
	if err := p.Conn.PublishMsg(&m); err != nil {
		return 0, err
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case m := <-answer:
		return PubAck(m)
	case <-timer.C:
		return 0, nats.ErrTimeout
	case <-wake:
		return 0, nats.ErrTimeout
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// enter makes a place for an answer.
func (p *Puts) enter() (string, chan *nats.Msg, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sub == nil {
		p.prefix, p.waiting = p.Conn.NewInbox()+".", make(map[string]chan *nats.Msg)
		sub, err := p.Conn.Subscribe(p.prefix+"*", p.answered)
		if err != nil {
			return "", nil, err
		}
		p.sub = sub
	}
	p.last++
	token, answer := strconv.FormatUint(p.last, 36), make(chan *nats.Msg, 1)
	p.waiting[token] = answer
	return token, answer, nil
}

func (p *Puts) leave(token string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, token)
}

func (p *Puts) answered(m *nats.Msg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.waiting[m.Subject[len(p.prefix):]]; c != nil {
		select {
		case c <- m:
		default: // it has had its answer
		}
	}
}

// Close ends the inbox; nothing may be put any more.
func (p *Puts) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sub != nil {
		_ = p.sub.Unsubscribe() // fails only where the connection is closed
	}
}
