package messages

import (
	"fmt"
	"reflect"
	"testing"
)

// same reports how the two decoders differ on data; "" for not at all.
func same(d *BeatDecoder, data []byte) string {
	var slow Heartbeat
	fast := Heartbeat{Agent: "of the beat before", Replicas: make([]ReplicaStatus, 3), Rev: 99}
	slowErr, fastErr := Decode(data, &slow), d.Decode(data, &fast)
	if (slowErr == nil) != (fastErr == nil) || CodeOf(slowErr) != CodeOf(fastErr) {
		return fmt.Sprintf("the library says %v, this decoder %v", slowErr, fastErr)
	}
	if slowErr == nil && !reflect.DeepEqual(slow, fast) {
		return fmt.Sprintf("the library reads\n%+v, this decoder\n%+v", slow, fast)
	}
	return ""
}

func FuzzBeatDecoder(f *testing.F) {
	for _, s := range samples() {
		if h, ok := s.want.(*Heartbeat); ok {
			data := golden(f, s.golden, nil)
			f.Add(data)
			h := *h
			h.Replicas = nil
			small, err := Encode(&h)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(small)
		}
	}
	for _, data := range hostile() {
		if len(data) < 4096 {
			f.Add(data)
		}
	}
	var d BeatDecoder
	f.Fuzz(func(t *testing.T, data []byte) {
		if diff := same(&d, data); diff != "" {
			t.Fatalf("%x: %s", data, diff)
		}
	})
}

// Every heartbeat of a sample that is cut short, or has one byte changed, is judged alike.
func TestBeatDecoderAgrees(t *testing.T) {
	var d BeatDecoder
	data := golden(t, "heartbeat", nil)
	for n := range data {
		if diff := same(&d, data[:n]); diff != "" {
			t.Fatalf("cut to %d bytes: %s", n, diff)
		}
		for _, c := range []byte{0x00, 0x7f, 0x80, 0x81, 0x8f, 0x90, 0xa1, 0xc0, 0xc3, 0xca, 0xcb, 0xcc, 0xcf, 0xd0, 0xd9, 0xdc, 0xde, 0xff, 'a', 'v'} {
			changed := append([]byte{}, data...)
			changed[n] = c
			if diff := same(&d, changed); diff != "" {
				t.Fatalf("byte %d is %x: %s", n, c, diff)
			}
		}
	}
	if diff := same(&d, data); diff != "" {
		t.Fatal(diff)
	}
	for i := range 3 { // extremes
		h := Heartbeat{Agent: "edge-1", State: AgentReady, Seq: 1<<64 - 1, Rev: uint64(i), Inc: Fence{Epoch: -int64(i), Revision: 1 << 40}}
		for j := range i * 40 {
			h.Replicas = append(h.Replicas, ReplicaStatus{ID: fmt.Sprintf("task-%d/0", j), State: ReplicaReady, InFlight: 1 << 20, Reason: string(make([]byte, 10*j))})
		}
		data, err := Encode(&h)
		if err != nil {
			t.Fatal(err)
		}
		if diff := same(&d, data); diff != "" {
			t.Fatal(diff)
		}
	}
}

// The way past the library is the way that is taken: with what agents send nothing is
// allocated but the list of replicas.
func TestBeatDecoderIsFast(t *testing.T) {
	h := Heartbeat{Agent: "edge-1", Inc: aFence, Seq: 77, State: AgentReady, Capacity: aResource, Term: aFence, Rev: 5, DataAge: 120.5, RTT: 0.25}
	for replicas := range 3 {
		data, err := Encode(&h)
		if err != nil {
			t.Fatal(err)
		}
		var d BeatDecoder
		var got Heartbeat
		if n := testing.AllocsPerRun(100, func() {
			if err := d.Decode(data, &got); err != nil {
				t.Fatal(err)
			}
		}); n > float64(min(replicas, 1)) {
			t.Errorf("%d replicas: %v allocations", replicas, n)
		}
		h.Replicas = append(h.Replicas, ReplicaStatus{ID: "detect/0", State: ReplicaReady, InFlight: 1, Served: 300, Rate: 1.5, Latency: 3.25})
	}
}

// Names that somebody makes up do not fill the memory.
func TestBeatDecoderIsBounded(t *testing.T) {
	var d BeatDecoder
	for i := range maxBeatNames + 100 {
		d.name(fmt.Appendf(nil, "agent-%d", i))
	}
	if len(d.names) > maxBeatNames {
		t.Errorf("%d names are kept", len(d.names))
	}
}
