package messages

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

// updateNew writes goldens that are missing. There is no flag that overwrites one: what
// was once on the wire stays readable for ever.
var updateNew = flag.Bool("update-new", false, "write the goldens that are missing; never overwrites")

// golden returns the content of a file in testdata.
func golden(t testing.TB, name string, fresh []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *updateNew {
		// O_EXCL: a file that is there is not touched.
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil {
			_, err = f.Write(fresh)
			if cerr := f.Close(); err == nil {
				err = cerr
			}
		}
		if err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v\nwrite the missing ones with: go test ./messages -update-new", err)
	}
	return data
}

// utc makes the times in a message comparable: the wire has no time zone.
func utc(m Message) {
	switch m := m.(type) {
	case *Event:
		m.Time = m.Time.UTC()
	case *Explanation:
		for i := range m.History {
			utc(&m.History[i])
		}
		for _, r := range m.Replicas {
			for i := range r.History {
				utc(&r.History[i])
			}
		}
	case *Job:
		m.Created = m.Created.UTC()
	}
}

func TestGoldens(t *testing.T) {
	for _, s := range samples() {
		t.Run(s.golden, func(t *testing.T) {
			fresh, err := Encode(s.want)
			if err != nil {
				t.Fatal(err)
			}
			data := golden(t, s.golden, fresh)
			got := s.zero()
			if err := Decode(data, got); err != nil {
				t.Fatal(err)
			}
			if utc(got); !reflect.DeepEqual(got, s.want) {
				t.Errorf("decoded\n got %+v\nwant %+v", got, s.want)
			}
			again, err := Encode(got)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again, data) {
				t.Errorf("encoded again\n got %x\nwant %x", again, data)
			}
		})
	}
}

// Every file in testdata has a sample: a sample that was taken away would leave bytes
// that nobody proves readable.
func TestEveryGoldenIsRead(t *testing.T) {
	have := map[string]bool{}
	for _, s := range samples() {
		have[s.golden] = true
	}
	files, err := filepath.Glob("testdata/*.golden")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".golden")
		if !have[name] && !strings.HasPrefix(name, "codes-") {
			t.Errorf("%s has no sample", f)
		}
	}
}

// A key that no golden has could change its name without a test that notices.
func TestSamplesHaveEveryField(t *testing.T) {
	seen := map[string]bool{} // type.field, with a value somewhere
	all := map[string]bool{}
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.Struct:
			if v.Type() == reflect.TypeFor[time.Time]() {
				return
			}
			for i := range v.NumField() {
				f := v.Type().Field(i)
				if f.Tag.Get("msgpack") == "-" {
					continue
				}
				name := v.Type().Name() + "." + f.Name
				all[name] = true
				if !v.Field(i).IsZero() {
					seen[name] = true
				}
				walk(v.Field(i))
			}
		}
	}
	for _, s := range samples() {
		walk(reflect.ValueOf(s.want))
	}
	for f := range all {
		if !seen[f] {
			t.Errorf("no sample has a value for %s", f)
		}
	}
}

// A newer program's keys, of whatever type, are kept out of the way.
func TestUnknownKeysAreSkipped(t *testing.T) {
	strange := []any{
		nil, true, -1, 1 << 40, 2.5, float32(1), "text", []byte{1, 2}, []any{1, "x", []any{nil}},
		map[string]any{"a": map[string]any{"b": []any{map[string]any{}}}}, strings.Repeat("x", 70_000),
	}
	for _, s := range samples() {
		data, err := Encode(s.want)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range strange {
			for _, where := range []string{"first", "last"} {
				got := s.zero()
				if err := Decode(withKey(t, data, fmt.Sprintf("new%d", i), v, where == "last"), got); err != nil {
					t.Errorf("%s with %T %s: %v", s.golden, v, where, err)
				} else if utc(got); !reflect.DeepEqual(got, s.want) {
					t.Errorf("%s with %T %s: decoded %+v", s.golden, v, where, got)
				}
			}
		}
	}
}

// withKey adds a key to the map that data is.
func withKey(t testing.TB, data []byte, key string, value any, last bool) []byte {
	t.Helper()
	pair, err := msgpack.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	v, err := msgpack.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	pair = append(pair, v...)
	it, ok := nextItem(data)
	if !ok || it.children == 0 {
		t.Fatalf("not a map: %x", data)
	}
	n := it.children/2 + 1
	out := []byte{0xde, byte(n >> 8), byte(n)}
	if last {
		return append(append(out, data[it.size:]...), pair...)
	}
	return append(append(out, pair...), data[it.size:]...)
}

// Equal messages are equal bytes, whatever the order of a Go map.
func TestEncodingIsStable(t *testing.T) {
	for _, s := range samples() {
		first, err := Encode(s.want)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			again, err := Encode(s.want)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(first, again) {
				t.Fatalf("%s: two encodings of one message differ\n%x\n%x", s.golden, first, again)
			}
		}
	}
}
