package data

import (
	"context"
	"errors"
	"strings"

	"github.com/fleetbus/fleetbus/exchange/data/drift"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/nats-io/nats.go/jetstream"
)

// Status says how every environment stands towards the bodies of these names, or of all
// without names: who is in their audience by its registration, and what it acknowledged
// last. Names that there are not are an error with code not_found.
func (s *Store) Status(ctx context.Context, names ...string) ([]Record, []Line, error) {
	records, err := s.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	if len(names) > 0 {
		if records, err = pick(records, names); err != nil {
			return nil, nil, err
		}
	}
	var fleet []messages.Environment
	err = entries(ctx, s.b, bus.Agents, func(key string, data []byte) {
		var r messages.Registration
		if messages.Decode(data, &r) == nil && r.Environment.ID == key {
			fleet = append(fleet, r.Environment.Normal())
		}
	})
	if err != nil {
		return nil, nil, err
	}
	acks := make(map[string]map[string]messages.DataAck)
	err = entries(ctx, s.b, bus.Acks, func(key string, data []byte) {
		agent, name, _ := strings.Cut(key, ".")
		var a messages.DataAck
		if messages.Decode(data, &a) != nil || a.Agent != agent || a.Name != name {
			return // who may write the key is who it names; what it says of others counts for nothing
		}
		if acks[agent] == nil {
			acks[agent] = make(map[string]messages.DataAck)
		}
		acks[agent][name] = a
	})
	return records, drift.Lags(records, fleet, acks), err
}

func pick(records []Record, names []string) ([]Record, error) {
	byName := make(map[string]Record, len(records))
	for _, r := range records {
		byName[r.Name] = r
	}
	picked := make([]Record, 0, len(names))
	for _, n := range names {
		r, ok := byName[n]
		if !ok {
			return nil, messages.Errorf(messages.CodeNotFound, "there is no data %q; `fleetbus sync ls` lists what there is", n)
		}
		picked = append(picked, r)
	}
	return picked, nil
}

// entries calls use with every entry of a bucket. There may be many: one consumer reads
// them, for as long as it takes.
func entries(ctx context.Context, b *bus.Bus, bucket bus.Bucket, use func(key string, data []byte)) error {
	kv, err := b.KV(ctx, bucket)
	if err != nil {
		return err
	}
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return bus.Explain(err, "read bucket "+kv.Bucket())
	}
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.Updates():
			if !ok {
				return bus.Explain(errors.New("the watcher ended"), "read bucket "+kv.Bucket())
			}
			if e == nil {
				return nil // all that there was
			}
			use(e.Key(), e.Value())
		case <-ctx.Done():
			return bus.Explain(ctx.Err(), "read bucket "+kv.Bucket())
		}
	}
}
