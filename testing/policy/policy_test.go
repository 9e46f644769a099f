package policy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"math"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/fleetbus/fleetbus/internal/openpiwire"
	"github.com/vmihailenco/msgpack/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write goldens that are missing; what is there is never changed")

// The frames are those of the goldens, which never change.
func TestGoldens(t *testing.T) {
	for name, got := range map[string][]byte{"observation": Observation(4, 7), "answer": Answer(7), "metadata": Metadata()} {
		file := filepath.Join("testdata", name+".msgpack")
		want, err := os.ReadFile(file)
		if os.IsNotExist(err) && *update {
			want, err = got, os.WriteFile(file, got, 0o644)
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: % x, golden % x, %v", name, got, want, err)
		}
	}
}

// A library that knows nothing of this package reads what the stock sides would have
// written: arrays are maps whose keys are bin, everything else has keys of type str.
func TestFramesAreMsgpack(t *testing.T) {
	dec := msgpack.NewDecoder(bytes.NewReader(Observation(224, 9)))
	n, err := dec.DecodeMapLen()
	if err != nil || n != 5 {
		t.Fatal(n, err)
	}
	type array struct {
		dtype string
		shape []int
		data  []byte
	}
	read := func() (a array) {
		t.Helper()
		if n, err := dec.DecodeMapLen(); err != nil || n != 4 {
			t.Fatal(n, err)
		}
		for range 4 {
			if c, err := dec.PeekCode(); err != nil || c != 0xc4 {
				t.Fatalf("a key begins with %x, want bin: %v", c, err)
			}
			key, err := dec.DecodeBytes()
			if err != nil {
				t.Fatal(err)
			}
			switch string(key) {
			case "__ndarray__":
				if yes, err := dec.DecodeBool(); !yes || err != nil {
					t.Fatal(err)
				}
			case "data":
				a.data, err = dec.DecodeBytes()
			case "dtype":
				a.dtype, err = dec.DecodeString()
			case "shape":
				var n int
				if n, err = dec.DecodeArrayLen(); err == nil {
					for range n {
						v, _ := dec.DecodeInt()
						a.shape = append(a.shape, v)
					}
				}
			default:
				t.Fatalf("key %q", key)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return a
	}
	for i, want := range []struct {
		key, dtype string
		shape      []int
		size       int
	}{
		{"observation/exterior_image_1_left", "|u1", []int{224, 224, 3}, 224 * 224 * 3},
		{"observation/wrist_image_left", "|u1", []int{224, 224, 3}, 224 * 224 * 3},
		{"observation/joint_position", "<f8", []int{7}, 56},
		{"observation/gripper_position", "<f8", []int{1}, 8},
	} {
		key, err := dec.DecodeString()
		a := read()
		if err != nil || key != want.key || a.dtype != want.dtype || !reflect.DeepEqual(a.shape, want.shape) || len(a.data) != want.size {
			t.Errorf("%s: %s %v %d bytes, %v", key, a.dtype, a.shape, len(a.data), err)
		}
		if i == 0 && binary.BigEndian.Uint64(a.data) != 9 {
			t.Error("the id is not in the first picture")
		}
	}
	if s, err := dec.DecodeString(); err != nil || s != "prompt" {
		t.Error(s, err)
	}
	var answer map[string]any
	if err := msgpack.Unmarshal(Answer(7), &answer); err != nil {
		t.Error(err)
	}
	if again, err := msgpack.Marshal(answer); err != nil || bytes.Contains(again, []byte("\xc4\x04data")) {
		t.Errorf("decoded and encoded again the keys are still bin: then nothing would be proved by bytes that pass untouched; %v", err)
	}
	if v := math.Float64frombits(binary.BigEndian.Uint64(Answer(7)[len(Answer(7))-8:])); v != 7 {
		t.Error(v)
	}
}

func TestSizesAndIDs(t *testing.T) {
	if n := len(Observation(224, 1)); n != Droid {
		t.Errorf("an observation of DROID has %d bytes, want %d", n, Droid)
	}
	if n := len(Answer(1)); n < 2500 || n > 3500 {
		t.Errorf("an answer has %d bytes, want about 3 kB", n)
	}
	for _, side := range []int{4, 8, 64, 147, 148, 224} {
		if id := IDOf(Observation(side, 12345)); id != 12345 {
			t.Errorf("side %d: id %d", side, id)
		}
	}
	if id := AnswerTo(Answer(12345)); id != 12345 {
		t.Error(id)
	}
}

// The client and the server of this package understand each other, over a real connection.
func TestClientAndServer(t *testing.T) {
	s := &Server{Metadata: Metadata(), Key: "secret", Infer: func(_ context.Context, o []byte) ([]byte, error) {
		if IDOf(o) == 3 {
			return nil, errors.New("no such camera")
		}
		return Answer(IDOf(o)), nil
	}}
	web := httptest.NewServer(s)
	defer web.Close()
	url := "ws" + strings.TrimPrefix(web.URL, "http")
	if _, err := Connect(t.Context(), url, "wrong"); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("a wrong key: %v", err)
	}
	c, err := Connect(t.Context(), url, "secret")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(c.Metadata, Metadata()) {
		t.Errorf("% x", c.Metadata)
	}
	for id := range uint64(3) {
		answer, err := c.Infer(t.Context(), Observation(224, id))
		if err != nil || AnswerTo(answer) != id {
			t.Fatal(AnswerTo(answer), err)
		}
	}
	_, err = c.Infer(t.Context(), Observation(4, 3))
	var traceback *openpiwire.Traceback
	if !errors.As(err, &traceback) || !strings.HasSuffix(err.Error(), "ValueError: no such camera") {
		t.Errorf("%v", err)
	}
	c.CloseNow()
}
