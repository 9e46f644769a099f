package messages

import "testing"

// A coordinator of 50,000 agents decodes as many heartbeats a second.
func BenchmarkDecodeHeartbeat(b *testing.B) {
	data := golden(b, "heartbeat", nil)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		var h Heartbeat
		if err := Decode(data, &h); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScanHeartbeat(b *testing.B) {
	data := golden(b, "heartbeat", nil)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := scan(data, false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeHeartbeat(b *testing.B) {
	var h Heartbeat
	if err := Decode(golden(b, "heartbeat", nil), &h); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Encode(&h); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseSubject(b *testing.B) {
	subject := subjectOf(KindWork).String()
	for b.Loop() {
		if _, err := ParseSubject(subject); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRequestHeaders(b *testing.B) {
	r := fullRequest()
	for b.Loop() {
		if _, err := ParseRequest(Subject{}, r.Header()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBeatDecoder(b *testing.B) {
	data := golden(b, "heartbeat", nil)
	b.SetBytes(int64(len(data)))
	var d BeatDecoder
	for b.Loop() {
		var h Heartbeat
		if err := d.Decode(data, &h); err != nil {
			b.Fatal(err)
		}
	}
}
