package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Options returns what every connection of ours sets. The times depend on one another:
//
//   - Reconnection never ends: with the default of 60 tries an agent would be deaf for
//     ever after a long night. 100 ms to 2 s apart, with jitter, so that a thousand
//     agents do not come back in the same millisecond.
//   - A ping every 2 s, two of which may be missed: a dead link is found in 4 to 6 s
//     where the kernel says nothing. Heartbeats (1 s × 3) find it sooner at the other
//     end.
//   - Nothing is buffered while there is no connection. A heartbeat or a command that
//     comes out of a buffer half a minute later would be a lie or an accident.
func Options(name string) []nats.Option {
	return []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(reconnectDelay),
		nats.PingInterval(2 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.ReconnectBufSize(-1),
		nats.Timeout(5 * time.Second), // one attempt to connect, TLS included; under the ~6 s that a dead link takes
	}
}

// reconnectDelay grows from 100 ms to 2 s with the rounds through the server list.
func reconnectDelay(attempts int) time.Duration {
	d := min(100*time.Millisecond<<min(max(attempts-1, 0), 5), 2*time.Second)
	// A little of every attempt's time differs between clients even without a random
	// number: the nanoseconds of the clock are as good as one.
	return d + time.Duration(time.Now().UnixNano())%(d/2+1)
}

// Connect opens a connection with [Options] and more. The first attempt must succeed:
// see [messages.Error] for what the error says.
func Connect(urls, name string, more ...nats.Option) (*nats.Conn, error) {
	nc, err := nats.Connect(urls, append(Options(name), more...)...)
	if err != nil {
		return nil, Explain(err, "connect to "+Redact(urls))
	}
	return nc, nil
}

// Redact hides passwords and tokens in server URLs.
func Redact(urls string) string {
	list := strings.Split(urls, ",")
	for i, u := range list {
		if at := strings.LastIndex(u, "@"); at >= 0 {
			scheme := ""
			if s := strings.Index(u, "://"); s >= 0 {
				scheme = u[:s+3]
			}
			list[i] = scheme + "***@" + u[at+1:]
		}
	}
	return strings.Join(list, ",")
}

// Explain turns an error of NATS into one that says what was tried, why it failed and
// what to do. An [*messages.Error] passes through; nil stays nil.
func Explain(err error, tried string) error {
	if err == nil {
		return nil
	}
	var ours *messages.Error
	if errors.As(err, &ours) {
		return err
	}
	code, hint := messages.CodeInternal, ""
	var api *jetstream.APIError
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked),
		errors.Is(err, nats.ErrPermissionViolation), errors.Is(err, nats.ErrNoUserCB), strings.Contains(err.Error(), "Authorization Violation"):
		code, hint = messages.CodeUnauthorized, "check --creds, --user, --token or the NATS context, and the permissions of that user"
	case errors.Is(err, nats.ErrNoServers):
		code, hint = messages.CodeUnavailable, "is a server running there? `fleetbus up` starts one; --server or a NATS context names another"
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount),
		errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		code, hint = messages.CodeUnavailable, "JetStream does not answer: enable it on the server (jetstream {} or `nats-server -js`) and for this account; `fleetbus doctor` tells more"
	case errors.Is(err, nats.ErrMaxPayload):
		code, hint = messages.CodePayloadTooLarge, "raise max_payload on the server (up to 8 MB) or send a reference"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		code, hint = messages.CodeUnavailable, "the server did not answer in time: it may be electing a leader, be overloaded or unreachable; try again, or ask `fleetbus doctor`"
	case errors.Is(err, context.Canceled):
		code = messages.CodeCanceled
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionReconnecting), errors.Is(err, nats.ErrDisconnected),
		errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrConnectionDraining):
		code, hint = messages.CodeUnavailable, "the connection is down; it reconnects by itself as long as the program runs"
	case errors.As(err, &api):
		code = messages.CodeUnavailable
		// Replicated streams have a code of their own for it.
		if api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant {
			code, hint = messages.CodeConflict, "somebody else changed it first: read it again"
		}
	}
	text := fmt.Sprintf("%s: %v", tried, err)
	if hint != "" {
		text += "; " + hint
	}
	return &messages.Error{Code: code, Message: text}
}
