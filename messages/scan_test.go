package messages

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// u32 appends a big-endian 32-bit length to a code.
func u32(code byte, n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{code}, n) }

// keyed is a map of one key.
func keyed(key string, value []byte) []byte {
	return append(append([]byte{0x81, 0xa0 | byte(len(key))}, key...), value...)
}

// Messages that a stranger sends to exhaust us. Before they were scanned, the library
// took hundreds of gigabytes for six bytes, or half a gigabyte of stack for a megabyte,
// and no recover helps against either.
func hostile() map[string][]byte {
	const most = 1<<32 - 1
	deep := func(code byte, n int) []byte { return bytes.Repeat([]byte{code}, n) }
	deepMaps := bytes.Repeat([]byte{0x81, 0xa1, 'x'}, MaxControl/3-10)
	return map[string][]byte{
		"nothing":                        {},
		"nil":                            {0xc0},
		"array":                          {0x90},
		"reserved byte":                  keyed("x", []byte{0xc1}),
		"map of 2^32-1":                  u32(0xdf, most),
		"map16 cut short":                {0xde, 0xff},
		"array of 2^32-1 structs":        keyed("rs", u32(0xdd, most)),
		"array of 2^32-1 tasks":          keyed("ts", u32(0xdd, most)),
		"array of 2^31 agents":           keyed("a", u32(0xdd, 1<<31)),
		"array of 2^32-1 strings":        keyed("ids", u32(0xdd, most)),
		"array of 2^32-1 to skip":        keyed("unknown", u32(0xdd, most)),
		"string of 2^32-1":               keyed("a", u32(0xdb, most)),
		"string to skip of 2^32-1":       keyed("unknown", u32(0xdb, most)),
		"bytes of 2^32-1":                keyed("re", u32(0xc6, most)),
		"ext of 2^32-1":                  keyed("ti", append(u32(0xc9, most), 0xff)),
		"labels of 2^32-1":               keyed("e", keyed("l", u32(0xdf, most))),
		"labels inside an ext":           keyed("e", keyed("l", append([]byte{0xd7, 0xff}, append(u32(0xdf, most), 0, 0, 0)...))),
		"counts inside an ext":           keyed("b", append([]byte{0xd7, 0xff}, append(u32(0xdf, most), 0, 0, 0)...)),
		"another ext":                    keyed("ti", []byte{0xd4, 0x05, 0x00}),
		"a million empty structs":        keyed("rs", append(u32(0xdd, MaxControl-9), deep(0x80, MaxControl-9)...)),
		"a million nil structs":          keyed("rs", append(u32(0xdd, MaxControl-9), deep(0xc0, MaxControl-9)...)),
		"many arrays of many structs":    keyed("ts", append([]byte{0xdc, 0x00, 0x20}, bytes.Repeat(keyed("r", append([]byte{0xdc, 0x60, 0x00}, deep(0x80, 0x6000)...)), 32)...)),
		"a megabyte of nested arrays":    keyed("unknown", deep(0x91, MaxControl-10)),
		"a megabyte of nested maps":      keyed("unknown", deepMaps),
		"nested arrays in a known place": keyed("rs", deep(0x91, 1000)),
		"two values":                     {0x81, 0xa1, 'v', 1, 0x80},
		"text":                           []byte(strings.Repeat("hello ", 1000)),
		"over MaxControl":                append([]byte{0x81, 0xa1, 'v', 1}, make([]byte, MaxControl)...),
	}
}

func TestHostileMessages(t *testing.T) {
	for name, data := range hostile() {
		t.Run(name, func(t *testing.T) {
			for _, s := range samples() {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				begun := time.Now()
				err := Decode(data, s.zero())
				took := time.Since(begun)
				runtime.ReadMemStats(&after)
				if CodeOf(err) != CodeBadRequest {
					t.Errorf("%s: %v", s.golden, err)
				} else if len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n\r") {
					t.Errorf("%s: not one short line: %q", s.golden, err)
				}
				// What is within the limits of scan may still fill 64 Ki structs.
				if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
					t.Errorf("%s: took %d MiB", s.golden, got>>20)
				}
				if got := after.StackSys; got > before.StackSys+8<<20 {
					t.Errorf("%s: the stack grew by %d MiB", s.golden, (got-before.StackSys)>>20)
				}
				if took > 5*time.Second {
					t.Errorf("%s: took %s", s.golden, took)
				}
			}
		})
	}
}

// The widest message that scan lets through stays within its memory.
func TestWidestMessage(t *testing.T) {
	data := keyed("r", append(u32(0xdd, maxElements), bytes.Repeat([]byte{0x80}, maxElements)...))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := Decode(data, &State{}); CodeOf(err) != CodeBadRequest {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
		t.Errorf("took %d MiB", got>>20)
	}
}

// A message with a time may hold an extension, and so must hold no map, in which the
// library looks for one.
func TestNoMapBesideATime(t *testing.T) {
	var has func(t reflect.Type, k func(reflect.Type) bool) bool
	has = func(t reflect.Type, k func(reflect.Type) bool) bool {
		if k(t) {
			return true
		}
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice:
			return has(t.Elem(), k)
		case reflect.Struct:
			for i := range t.NumField() {
				if has(t.Field(i).Type, k) {
					return true
				}
			}
		}
		return false
	}
	for _, s := range samples() {
		typ := reflect.TypeOf(s.want)
		isTime := has(typ, func(t reflect.Type) bool { return t == reflect.TypeFor[time.Time]() })
		isMap := has(typ, func(t reflect.Type) bool { return t.Kind() == reflect.Map })
		if isTime != hasTime(s.want) {
			t.Errorf("hasTime(%s) is %v", typ, hasTime(s.want))
		}
		if isTime && isMap {
			t.Errorf("%s has a time and a map", typ)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, tc := range []struct {
		version int
		ok      bool
	}{{-1, false}, {0, false}, {1, true}, {Version, true}, {Version + 1, false}} {
		data := append([]byte{0x82, 0xa1, 'h', 0xa1, 'x', 0xa1, 'v'}, byte(tc.version))
		err := Decode(data, &Lease{})
		if (err == nil) != tc.ok {
			t.Errorf("version %d: %v", tc.version, err)
		}
	}
	if err := Decode([]byte{0x81, 0xa1, 'h', 0xa1, 'x'}, &Lease{}); err == nil {
		t.Error("a message without a version was accepted")
	}
}

func TestEncodeRefusesWhatCannotBeSent(t *testing.T) {
	_, err := Encode(&Lease{Holder: strings.Repeat("x", MaxControl)})
	if CodeOf(err) != CodePayloadTooLarge {
		t.Error(err)
	}
}
