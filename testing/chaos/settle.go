package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fleetbus/fleetbus/exchange/data"
	"github.com/fleetbus/fleetbus/exchange/data/drift"
	"github.com/fleetbus/fleetbus/internal/history"
	"github.com/fleetbus/fleetbus/testing/chaos/check"
	"github.com/nats-io/nuid"
)

// settleWithin bounds what comes by itself after the load: a receiver looks into its box
// once a minute even where every word of it was lost. With planted faults it never comes.
const (
	settleWithin  = 100 * time.Second
	plantedWithin = 5 * time.Second
)

// settle lets what was acknowledged arrive: agents send no more, messages come, and a last
// body reaches everybody. It writes down who holds what in the end.
func (s *stage) settle(ctx context.Context) error {
	within := settleWithin
	if len(s.plants) > 0 {
		within = plantedWithin
	}
	agents := s.list(func(role string) bool { return role == roleAgent })
	for _, p := range agents {
		p.order(orderQuiet)
	}
	limit, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	if err := s.until(limit, "agents to end what they send", func(context.Context) error {
		for _, p := range agents {
			if !s.held.isQuiet(p.Name) {
				return fmt.Errorf("%s sends", p.Name)
			}
		}
		return nil
	}); err != nil {
		s.found(err)
	}
	limit, cancel = context.WithTimeout(ctx, within)
	defer cancel()
	for pause(limit, time.Second) == nil {
		records, _, err := s.records()
		if err != nil {
			return err
		}
		if n := check.Undelivered(records); n == 0 {
			break
		}
	}
	return s.holdAll(ctx, within)
}

// holdAll puts a body that nobody writes over, and waits until every agent holds it.
func (s *stage) holdAll(ctx context.Context, within time.Duration) error {
	store := data.NewStore(s.bus)
	b := bytes.Repeat([]byte("the last one "), bodySize/13)
	r := history.Record{Kind: history.Sent, ID: nuid.Next(), Class: check.Sync, Task: bodyName}
	s.hist.Write(r)
	limit, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	if err := s.until(limit, "the last body to be stored", func(ctx context.Context) error {
		record, err := store.Put(ctx, data.Body{Name: bodyName, By: "faults"}, bytes.NewReader(b))
		if err == nil {
			stored(s.hist, r, b, record.Rev)
		}
		return err
	}); err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	want := hex.EncodeToString(sum[:])
	limit, cancel = context.WithTimeout(ctx, within)
	defer cancel()
	// That somebody does not hold it is for the checker to say, not for this wait; that the
	// status says something else than the disks do is a finding.
	_ = s.until(limit, "everybody to hold it", func(context.Context) error {
		for _, n := range agentNames {
			if got := digest(s.dir, n); got != want {
				return fmt.Errorf("%s holds %.12q", n, got)
			}
		}
		return nil
	})
	if err := s.until(limit, "sync status to say that everybody holds it", func(ctx context.Context) error {
		_, lines, err := store.Status(ctx, bodyName)
		if err != nil {
			return err
		}
		for _, l := range lines {
			if l.State != drift.Synced {
				return fmt.Errorf("%s is %s: %s", l.Agent, l.State, l.Reason)
			}
		}
		if len(lines) != len(agentNames) {
			return fmt.Errorf("it tells of %d of %d", len(lines), len(agentNames))
		}
		return nil
	}); err != nil && len(s.plants) == 0 {
		s.found(err)
	}
	for i, n := range agentNames {
		h := history.Record{Kind: history.Held, Agent: n, Task: bodyName, Text: digest(s.dir, n)}
		if i == 0 && slices.Contains(s.plants, plantDigest) {
			h.Text = "planted"
		}
		s.hist.Write(h)
	}
	return nil
}

// digest is that of the body that an agent holds, read from its disk; "" for none.
func digest(dir, agent string) string {
	f, err := os.Open(filepath.Join(heldIn(dir, agent), bodyName))
	if err != nil {
		return ""
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return ""
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// records reads what all have written, and returns how many histories there are.
func (s *stage) records() (records []history.Record, files int, err error) {
	paths, err := filepath.Glob(filepath.Join(s.dir, "history-*.jsonl"))
	if err != nil {
		return nil, 0, err
	}
	for _, path := range paths {
		list, err := history.Read(path)
		if err != nil {
			return nil, 0, err
		}
		records = append(records, list...)
	}
	return records, len(paths), nil
}

// neighbours are those that an agent sends to: the two after it.
func neighbours(name string) []string {
	i := slices.Index(agentNames, name)
	return []string{agentNames[(i+1)%len(agentNames)], agentNames[(i+2)%len(agentNames)]}
}
