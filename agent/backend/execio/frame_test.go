package execio

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
)

func frames(t *testing.T, list ...frame) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, f := range list {
		if err := writeFrame(&b, f.header, f.body); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestFramesRoundTrip(t *testing.T) {
	left := int64(180)
	list := []frame{
		{header{Type: typeReady}, nil},
		{header{Type: typeRequest, ID: 7, Task: "detect", Class: "inference", DeadlineMS: &left, ContentType: "image/jpeg", Request: "r", Attempt: 2, Origin: "o", Key: "k", Seq: 3, Episode: "e"}, []byte("body")},
		{header{Type: typeProgress, ID: 7, Done: 0.5, Note: "ü"}, []byte{}},
	}
	r := bufio.NewReader(bytes.NewReader(frames(t, list...)))
	for i, want := range list {
		h, body, err := readFrame(r, 100)
		if err != nil {
			t.Fatal(err)
		}
		if h.DeadlineMS != nil && *h.DeadlineMS == left {
			h.DeadlineMS = &left
		}
		if h != want.header || !bytes.Equal(body, want.body) {
			t.Errorf("frame %d: %+v %q", i, h, body)
		}
	}
	if _, _, err := readFrame(r, 100); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestMalformedFrames(t *testing.T) {
	good := frames(t, frame{header{Type: typeResult, ID: 1}, []byte("12345")})
	for _, c := range []struct{ name, in, text string }{
		{"printed text", "hello, world\n", `its output is not a frame: a header of 1751477356 bytes, allowed are 65536; it begins with "hello, world."; only frames may go to standard output`},
		{"half a length", "\x00\x00", "ends inside the length of a header"},
		{"half a header", "\x00\x00\x00\x10{}", "ends inside a header of 16 bytes"},
		{"no JSON", "\x00\x00\x00\x05hello\x00\x00\x00\x00", `not a JSON object as expected: invalid character 'h' looking for beginning of value; found "hello"`},
		{"a list", "\x00\x00\x00\x02[]\x00\x00\x00\x00", "not a JSON object"},
		{"no body length", string(good[:len(good)-9]), "ends inside the length of a body"},
		{"half a body", string(good[:len(good)-1]), "ends inside a body of 5 bytes"},
		{"large body", "\x00\x00\x00\x11{\"type\":\"result\"}\x10\x00\x00\x00", "ends inside a body of 268435456 bytes, allowed are 100"},
		{"large body, all of it", "\x00\x00\x00\x11{\"type\":\"result\"}\x00\x00\x00\x65" + strings.Repeat("x", 101), `a "result" frame has a body of 101 bytes, allowed are 100; send a reference instead`},
	} {
		_, _, err := readFrame(bufio.NewReader(strings.NewReader(c.in)), 100)
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v does not say %q", c.name, err, c.text)
		}
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x0e{\"type\":\"ready\"}\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x00\x00\x02{}\x00\x00\x00\x03abcrest"))
	f.Add([]byte("Traceback (most recent call last):\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		const most = 1000
		r := bufio.NewReader(bytes.NewReader(data))
		for {
			h, body, err := readFrame(r, most)
			if err != nil {
				if strings.ContainsAny(err.Error(), "\n\x00") {
					t.Fatalf("an error of more than a line: %q", err)
				}
				return
			}
			if len(body) > most {
				t.Fatalf("a body of %d bytes", len(body))
			}
			var b bytes.Buffer
			if err := writeFrame(&b, h, body); err != nil {
				t.Fatal(err)
			}
			again, same, err := readFrame(bufio.NewReader(&b), most)
			if err != nil || again.Type != h.Type || again.ID != h.ID || !bytes.Equal(same, body) {
				t.Fatalf("%+v became %+v: %v", h, again, err)
			}
		}
	})
}
