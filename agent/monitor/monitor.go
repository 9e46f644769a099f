package monitor

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/messages"
)

// Times of a [Monitor]. They depend on one another: it reads every readEvery and reckons over
// window, which is long beside the hundredth of a second in which the kernel counts and short
// enough that a load shows in less than two seconds (window, readEvery, and the beat that is
// sent at once). readTime bounds a reading: a disk that hangs must not look like a calm
// machine for longer than that, and keeps nobody from ending.
const (
	readEvery = 500 * time.Millisecond
	window    = time.Second
	readTime  = 2 * time.Second
)

// What is foreign must change by this part of the capacity to be worth a beat of its own:
// twice the change that moves anything.
const worthBeat = 0.1

// Config is what a [Monitor] needs to know.
type Config struct {
	Capacity messages.Resources // of the machine, as it is announced
	Measured Which              // of what others use it is told; the rest is left at 0
	GPU      bool               // compute is that of the GPUs
	Logger   *slog.Logger       // nil: slog.Default()
}

// Which are resources.
type Which struct{ Compute, Storage, Network bool }

// Monitor reads a machine again and again. Its methods may be called from many goroutines.
type Monitor struct {
	cfg     Config
	source  Source
	changed chan struct{}

	// Of Run's goroutine.
	pending chan reading // nil: nothing is being read
	late    bool         // it was given up: what it brings is old

	mu       sync.Mutex
	ours     func() Ours
	past     []Snapshot // of the last window, the oldest first
	readings *messages.Readings
	foreign  messages.Resources
	told     messages.Resources // when changed was signalled last
	failing  string             // what was logged
}

// reading is what a source has said.
type reading struct {
	s   Snapshot
	err error
}

// errHangs says that a source does not answer.
var errHangs = fmt.Errorf("no answer within %v: a disk or a sensor hangs", readTime)

// New makes a monitor that reads a source. It starts nothing.
func New(cfg Config, source Source) *Monitor {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Monitor{cfg: cfg, source: source, changed: make(chan struct{}, 1)}
}

// Run reads until ctx ends.
func (m *Monitor) Run(ctx context.Context) {
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	for {
		if m.look(ctx); ctx.Err() != nil {
			return // the tick is there, too, after a reading that took its time
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look reads once. A machine that cannot be read is said to be as it was: room that is
// believed in and is not there costs more than room that is left free.
func (m *Monitor) look(ctx context.Context) {
	now, err := m.read(ctx)
	if ctx.Err() != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		if m.failing != err.Error() {
			m.failing = err.Error()
			m.cfg.Logger.Warn("the machine cannot be read; what was read last holds", "reason", m.failing)
		}
		return
	}
	if m.failing != "" {
		m.failing = ""
		m.cfg.Logger.Info("the machine can be read again")
	}
	var ours Ours
	if m.ours != nil {
		ours = m.ours()
		now.OwnIn, now.OwnOut = ours.In, ours.Out
	}
	m.take(now, ours)
}

// read asks the source, and waits no longer than readTime. The kernel may keep whoever asks it
// for a disk that is gone, whatever its context says: there is never more than one, and what
// it brings after its time counts for nothing.
func (m *Monitor) read(ctx context.Context) (Snapshot, error) {
	if m.pending == nil {
		answer := make(chan reading, 1)
		m.pending, m.late = answer, false
		go func() {
			asked, cancel := context.WithTimeout(ctx, readTime)
			defer cancel()
			s, err := m.source.Read(asked)
			answer <- reading{s, err}
		}()
	}
	over := time.NewTimer(readTime)
	defer over.Stop()
	select {
	case r := <-m.pending:
		m.pending = nil
		if m.late {
			return Snapshot{}, errHangs
		}
		return r.s, r.err
	case <-over.C:
		m.late = true
		return Snapshot{}, errHangs
	}
}

// take takes in a snapshot; mu is held.
func (m *Monitor) take(now Snapshot, ours Ours) {
	m.past = append(m.past, now)
	for len(m.past) > 2 && now.At.Sub(m.past[1].At) >= window {
		m.past = m.past[1:]
	}
	if len(m.past) < 2 {
		return
	}
	r, use := Reckon(m.past[0], now, m.cfg.GPU)
	m.readings = &r
	f := use.Foreign(m.cfg.Capacity, ours)
	if !m.cfg.Measured.Compute {
		f.Compute = 0
	}
	if !m.cfg.Measured.Storage {
		f.Storage = 0
	}
	if !m.cfg.Measured.Network {
		f.Network = 0
	}
	m.foreign = f
	if leapt(m.told, f, m.cfg.Capacity) {
		m.told = f
		select {
		case m.changed <- struct{}{}:
		default:
		}
	}
}

// leapt reports whether b differs from a by a part of the capacity that is worth a beat.
func leapt(a, b, capacity messages.Resources) bool {
	far := func(a, b, all float64) bool { return all > 0 && math.Abs(b-a) >= worthBeat*all }
	return far(a.Compute, b.Compute, capacity.Compute) || far(a.Storage, b.Storage, capacity.Storage) || far(a.Network, b.Network, capacity.Network)
}

// Readings is what was read last; nil before the second reading. It may be changed.
func (m *Monitor) Readings() *messages.Readings {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.readings == nil {
		return nil
	}
	r := *m.readings
	return &r
}

// Foreign is what others use of what is measured.
func (m *Monitor) Foreign() messages.Resources {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.foreign
}

// Changed has something to receive when what others use has leapt.
func (m *Monitor) Changed() <-chan struct{} { return m.changed }

// Watch has the monitor ask what the agent does, until stop. ours must not block.
func (m *Monitor) Watch(ours func() Ours) (stop func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ours = ours
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.ours, m.past = nil, nil // the counters of the next begin anew
	}
}
