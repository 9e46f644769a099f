package bus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// apiTimeout bounds one request to the JetStream API. A raft group without a leader
// answers nothing for 4 to 9 s after its leader was killed; waiting for all of that
// would hide the reason from whoever asked, so callers retry at their own pace.
const apiTimeout = 5 * time.Second

// Bus gives access to the streams and buckets of one fleet over one connection.
type Bus struct {
	Fleet string
	Conn  *nats.Conn
	JS    jetstream.JetStream

	replicas int

	mu     sync.Mutex
	have   map[string]bool     // streams and consumers seen by this connection; see Forget
	chunks jetstream.JetStream // of uploads; nil before the first
}

// New makes a Bus for a fleet. It does not talk to the server. replicas is how many
// servers keep each stream and bucket: 1, 3 or 5; 0 means 3 where the server is in a
// cluster and 1 otherwise.
func New(nc *nats.Conn, fleet string, replicas int) (*Bus, error) {
	if err := messages.CheckName("fleet", fleet); err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(apiTimeout))
	if err != nil {
		return nil, Explain(err, "open JetStream")
	}
	return &Bus{Fleet: fleet, Conn: nc, JS: js, replicas: replicas, have: make(map[string]bool)}, nil
}

// Subject starts a subject of this fleet in a site.
func (b *Bus) Subject(kind messages.Kind, site string) messages.Subject {
	return messages.Subject{Kind: kind, Fleet: b.Fleet, Site: site}
}

// count is the number of replicas for what is about to be made.
func (b *Bus) count() int {
	if b.replicas > 0 {
		return b.replicas
	}
	if b.Conn.ConnectedClusterName() != "" {
		return 3
	}
	return 1
}

// Forget drops what this Bus remembers of existing streams and consumers. Call it
// after a reconnection and whenever a publish or a pull finds no stream: a memory
// stream is gone after the restart of its only server.
func (b *Bus) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.have)
}

func (b *Bus) known(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.have[name]
}

// Seen reports whether this Bus has seen the stream of a class in a site.
func (b *Bus) Seen(site string, class messages.Class) bool {
	return b.known(StreamName(b.Fleet, site, class))
}

func (b *Bus) remember(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.have[name] = true
}

// ensure makes a stream where it is missing. A stream of that name with other
// settings is left as it is: its owner changed it on purpose.
func (b *Bus) ensure(ctx context.Context, cfg jetstream.StreamConfig) error {
	if b.known(cfg.Name) {
		return nil
	}
	_, err := b.JS.Stream(ctx, cfg.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		cfg.Replicas = b.count()
		_, err = b.JS.CreateStream(ctx, cfg)
		if b.replicas == 0 && cfg.Replicas > 1 && tooFewPeers(err) {
			cfg.Replicas = 1
			_, err = b.JS.CreateStream(ctx, cfg)
		}
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			err = nil // somebody else was first, with other settings: theirs stand
		}
	}
	if err != nil {
		return Explain(err, "make stream "+cfg.Name)
	}
	b.remember(cfg.Name)
	return nil
}

// tooFewPeers reports whether a stream was refused because the cluster has too few
// servers for its replicas (10005), or is no cluster (10074).
func tooFewPeers(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == 10005 || api.ErrorCode == 10074)
}
