package router

import (
	"sync/atomic"
	"testing"

	"github.com/fleetbus/fleetbus/messages"
	"github.com/nats-io/nats.go"
)

// BenchmarkInfer compares a request through the client with the bare loops that one
// would write by hand; the agent is the test's own, in the same process.
func BenchmarkInfer(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"128", 128}, {"301436", 301_436}} {
		body := make([]byte, size.bytes)
		b.Run("raw/"+size.name, func(b *testing.B) {
			f := newFleet(b)
			nc := f.s.Connect(b)
			if _, err := nc.Subscribe("echo", func(m *nats.Msg) { _ = m.Respond([]byte("ok")) }); err != nil {
				b.Fatal(err)
			}
			if err := nc.Flush(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := f.nc.Request("echo", body, wait); err != nil {
					b.Fatal(err)
				}
			}
		})
		for name, r := range map[string]messages.TaskRoute{
			"direct/":  straight(task(messages.Inference, "see", "edge")),
			"durable/": task(messages.Inference, "see", "edge"),
		} {
			b.Run(name+size.name, func(b *testing.B) {
				f := newFleet(b)
				f.plan(r)
				f.agent("edge", func(call) ([]byte, *messages.Error) { return []byte("ok"), nil }).pull("see", 0, 4)
				c := f.client()
				for b.Loop() {
					if _, err := c.Infer(b.Context(), Inference{Task: "see", Body: body}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkInferParallel asks 64 at once.
func BenchmarkInferParallel(b *testing.B) {
	for name, r := range map[string]messages.TaskRoute{
		"direct":  straight(task(messages.Inference, "see", "edge")),
		"durable": task(messages.Inference, "see", "edge"),
	} {
		b.Run(name, func(b *testing.B) {
			f := newFleet(b)
			f.plan(r)
			f.agent("edge", func(call) ([]byte, *messages.Error) { return []byte("ok"), nil }).pull("see", 0, 64)
			c := f.client()
			var bad atomic.Int64
			b.SetParallelism(32)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := c.Infer(b.Context(), Inference{Task: "see", Body: []byte("x")}); err != nil {
						bad.Add(1)
					}
				}
			})
			if bad.Load() > 0 {
				b.Fatalf("%d failed", bad.Load())
			}
		})
	}
}
