package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleetbus/fleetbus/agent"
	"github.com/fleetbus/fleetbus/messages"
	"github.com/fleetbus/fleetbus/messages/bus"
	"github.com/fleetbus/fleetbus/router"
	"github.com/nats-io/nats.go"
)

// The loads of one-gpu and uplink10. A camera takes a picture 15 times a second; it is of
// use for half a second where all share a GPU, and for two where the way is narrow.
const (
	cameraRate     = 15
	gpuRobots      = 8
	gpuTime        = 150 * time.Millisecond
	gpuDeadline    = 500 * time.Millisecond
	uplinkBytes    = 301_436
	uplinkRate     = 10_000_000 / 8 // bytes a second
	uplinkTime     = 20 * time.Millisecond
	uplinkDeadline = 2 * time.Second
)

// watcher is one camera: it asks with every picture it takes, and keeps what came of each.
type watcher struct {
	mu       sync.Mutex
	answered []shot
	codes    map[messages.Code]int
}

// shot is a picture that was answered: when it was taken, and when its answer was here.
type shot struct{ taken, here time.Duration }

// watch takes pictures for a while and returns when every answer is here.
func (w *watcher) watch(ctx context.Context, c *router.Client, begun time.Time, last, deadline time.Duration, body []byte) error {
	w.codes = make(map[messages.Code]int)
	var all sync.WaitGroup
	defer all.Wait()
	for i := 0; ; i++ {
		at := time.Duration(i) * time.Second / cameraRate
		if at >= last {
			return nil
		}
		if err := rest(ctx, at-time.Since(begun)); err != nil {
			return err
		}
		all.Go(func() {
			taken := time.Since(begun)
			picture := slices.Clone(body)
			binary.BigEndian.PutUint64(picture, uint64(taken))
			_, err := c.Infer(ctx, router.Inference{Task: balanceTask, Key: "camera", Body: picture, Deadline: deadline})
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.codes[messages.CodeOf(err)]++; err == nil {
				w.answered = append(w.answered, shot{taken, time.Since(begun)})
			}
		})
	}
}

// stale counts the answers that nobody should have been given: after the deadline, or for
// a picture that is older than one whose answer was here already.
func (w *watcher) stale(deadline time.Duration) (n int) {
	newest := time.Duration(-1)
	for _, s := range w.answered {
		if s.here-s.taken > deadline+lateGrace || s.taken < newest {
			n++
		}
		newest = max(newest, s.taken)
	}
	return n
}

// lateGrace is what a loaded machine may take between an answer and the reading of a clock.
const lateGrace = 20 * time.Millisecond

// ages are how old the pictures were when their answers were here, ascending.
func ages(ws []*watcher) (list []time.Duration) {
	for _, w := range ws {
		for _, s := range w.answered {
			list = append(list, s.here-s.taken)
		}
	}
	slices.Sort(list)
	return list
}

// oneGPU has eight robots ask one replica that can do seventeen times less than they want.
func oneGPU(_ context.Context, o balanceOptions) ([]balanceFigure, error) {
	watchers := make([]*watcher, gpuRobots)
	err := inVirtualTime(o.test, func(ctx context.Context, connect connector) error { return runGPU(ctx, connect, watchers, o.last) })
	if err != nil {
		return nil, err
	}
	stale, least := 0, len(watchers[0].answered)
	for _, w := range watchers {
		stale += w.stale(gpuDeadline)
		least = min(least, len(w.answered))
	}
	list := ages(watchers)
	return []balanceFigure{
		alone("one-gpu", "stale", float64(stale), "count"),
		alone("one-gpu", "p50", inMillis(quantile(list, 0.5)), "ms"),
		alone("one-gpu", "p99", inMillis(quantile(list, 0.99)), "ms"),
		// The GPU could answer one after the other; a request that it began in vain cost it one.
		compared("one-gpu", "rate", float64(len(list))/o.last.Seconds(), float64(time.Second)/float64(gpuTime), "1/s"),
		alone("one-gpu", "least", float64(least)/o.last.Seconds(), "1/s"),
	}, nil
}

func runGPU(ctx context.Context, connect connector, watchers []*watcher, last time.Duration) (err error) {
	f, err := newBalanceFleet(ctx, connect, false, []balanceReplica{{agent: "gpu", tier: messages.Edge, serve: func(ctx context.Context, _ *agent.Request) ([]byte, error) {
		return nil, rest(ctx, gpuTime)
	}}})
	if err != nil {
		return err
	}
	defer func() {
		if stop := f.stop(); err == nil {
			err = stop
		}
	}()
	var all sync.WaitGroup
	errs := make([]error, len(watchers))
	begun := time.Now()
	for i := range watchers {
		c, err := f.client(ctx, connect, fmt.Sprintf("robot-%d", i))
		if err != nil {
			return err
		}
		watchers[i] = new(watcher)
		// Cameras do not take their pictures in step.
		shift := time.Duration(i) * time.Second / cameraRate / time.Duration(len(watchers))
		all.Go(func() { errs[i] = watchers[i].watch(ctx, c, begun.Add(shift), last, gpuDeadline, make([]byte, 8)) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// uplink10 has one client with a camera ask over 10 Mbit/s, which is a third of what the
// camera takes. The baseline sends every picture, as a loop does that knows nothing of
// newer ones.
func uplink10(ctx context.Context, o balanceOptions) ([]balanceFigure, error) {
	w := new(watcher)
	var served, bare []time.Duration // how old a picture was when its service began, ascending
	err := overTCP(func(url string) (err error) {
		if served, err = runUplink(ctx, url, w, o.last); err == nil {
			bare, err = bareUplink(ctx, url, o.last)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	list := ages([]*watcher{w})
	return []balanceFigure{
		compared("uplink10", "age_p50", inMillis(quantile(served, 0.5)), inMillis(quantile(bare, 0.5)), "ms"),
		compared("uplink10", "age_p99", inMillis(quantile(served, 0.99)), inMillis(quantile(bare, 0.99)), "ms"),
		alone("uplink10", "p50", inMillis(quantile(list, 0.5)), "ms"),
		alone("uplink10", "p99", inMillis(quantile(list, 0.99)), "ms"),
		alone("uplink10", "stale", float64(w.stale(uplinkDeadline)), "count"),
		alone("uplink10", "rate", float64(len(list))/o.last.Seconds(), "1/s"),
	}, nil
}

func runUplink(ctx context.Context, url string, w *watcher, last time.Duration) (served []time.Duration, err error) {
	var begun time.Time
	var mu sync.Mutex
	straight := func(name string) (*nats.Conn, error) { return bus.Connect(url, name) }
	f, err := newBalanceFleet(ctx, straight, false, []balanceReplica{{agent: "edge", tier: messages.Edge, serve: func(ctx context.Context, r *agent.Request) ([]byte, error) {
		mu.Lock()
		served = append(served, time.Since(begun)-time.Duration(binary.BigEndian.Uint64(r.Body)))
		mu.Unlock()
		return nil, rest(ctx, uplinkTime)
	}}})
	if err != nil {
		return nil, err
	}
	defer func() {
		if stop := f.stop(); err == nil {
			err = stop
		}
		slices.Sort(served)
	}()
	narrow, err := newNarrow(url)
	if err != nil {
		return nil, err
	}
	defer narrow.close()
	c, err := f.client(ctx, func(name string) (*nats.Conn, error) { return bus.Connect(narrow.url(), name) }, "robot")
	if err != nil {
		return nil, err
	}
	begun = time.Now()
	return served, w.watch(ctx, c, begun, last, uplinkDeadline, make([]byte, uplinkBytes))
}

// bareUplink publishes every picture over a narrow link of its own and returns how old each
// was when it arrived, ascending.
func bareUplink(ctx context.Context, url string, last time.Duration) ([]time.Duration, error) {
	narrow, err := newNarrow(url)
	if err != nil {
		return nil, err
	}
	defer narrow.close()
	nc, err := bus.Connect(narrow.url(), "bare")
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	far, err := bus.Connect(url, "bare")
	if err != nil {
		return nil, err
	}
	defer far.Close()
	var mu sync.Mutex
	var list []time.Duration
	begun := time.Now()
	if _, err = far.Subscribe("bare", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		list = append(list, time.Since(begun)-time.Duration(binary.BigEndian.Uint64(m.Data)))
	}); err != nil {
		return nil, err
	}
	if err := far.Flush(); err != nil {
		return nil, err
	}
	for i := 0; time.Duration(i)*time.Second/cameraRate < last; i++ {
		if err := rest(ctx, time.Duration(i)*time.Second/cameraRate-time.Since(begun)); err != nil {
			return nil, err
		}
		picture := make([]byte, uplinkBytes)
		binary.BigEndian.PutUint64(picture, uint64(time.Since(begun)))
		if err := nc.Publish("bare", picture); err != nil {
			return nil, err
		}
	}
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(list)
	return list, nil
}

// narrow is a proxy whose way to the server carries uplinkRate.
type narrow struct {
	l       net.Listener
	target  string
	mu      sync.Mutex
	conns   []net.Conn
	running sync.WaitGroup
}

func newNarrow(url string) (*narrow, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &narrow{l: l, target: strings.TrimPrefix(url, "nats://")}
	n.running.Go(n.accept)
	return n, nil
}

func (n *narrow) url() string { return "nats://" + n.l.Addr().String() }

func (n *narrow) accept() {
	for {
		near, err := n.l.Accept()
		if err != nil {
			return
		}
		far, err := net.DialTimeout("tcp", n.target, balanceReady)
		if err != nil {
			_ = near.Close()
			continue
		}
		n.mu.Lock()
		n.conns = append(n.conns, near, far)
		n.mu.Unlock()
		_ = near.(*net.TCPConn).SetReadBuffer(narrowBuffer) // what the kernel hides is part of the way
		n.running.Go(func() { n.up(far, near) })
		n.running.Go(func() {
			_, _ = io.Copy(near, far)
			_ = near.Close()
		})
	}
}

// narrowBuffer and narrowChunk keep what waits in the proxy itself under 20 ms; narrowIdle is
// far above what a read takes of bytes that are there.
const (
	narrowBuffer = 16 << 10
	narrowChunk  = 4 << 10
	narrowIdle   = 5 * time.Millisecond
)

// up carries bytes at the rate of the link: each chunk is due when those before it are
// through.
func (n *narrow) up(far, near net.Conn) {
	defer far.Close()
	buf := make([]byte, narrowChunk)
	due := time.Now()
	for {
		asked := time.Now()
		k, err := near.Read(buf)
		if k > 0 {
			// Only a link that had nothing to carry begins anew: what a busy machine slept too
			// long between two chunks is no slower link.
			if now := time.Now(); now.Sub(asked) > narrowIdle && due.Before(now) {
				due = now
			}
			due = due.Add(time.Duration(k) * time.Second / uplinkRate)
			<-time.After(time.Until(due))
			if _, err := far.Write(buf[:k]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (n *narrow) close() {
	_ = n.l.Close()
	n.mu.Lock()
	for _, c := range n.conns {
		_ = c.Close()
	}
	n.mu.Unlock()
	n.running.Wait()
}
